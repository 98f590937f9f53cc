//! What holds in the end: the file under what flags say.

use std::path::{Path, PathBuf};

use super::policy::{self, EffectivePolicy};
use super::{
    Config, Diagnostic, Diagnostics, FileMark, Locations, Overrides, Source, TEXT_BYTES_MAX, check,
    database_url, is_protected,
};
use crate::front::{URL_REMEDY, UpstreamOptions};

/// What holds in the end, and enough to tell where each value comes from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    /// The file as it was read, to tell whether it has changed since.
    pub mark: Option<FileMark>,
    /// The options, flags applied.
    pub config: Config,
    /// What flags and environment variables said.
    pub overrides: Overrides,
    /// What is odd and was let pass.
    pub warnings: Vec<Diagnostic>,
    source: Source,
    locations: Locations,
}

impl Settings {
    /// Reads a file, or starts from defaults, and applies what flags say.
    ///
    /// # Errors
    /// Everything wrong with the file, in its order.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Self, Diagnostics> {
        let (source, mark) = match path {
            Some(path) => read(path)?,
            None => (Source::default(), None),
        };
        let mut parsed = check(&source);
        if parsed.diagnostics.has_errors() {
            return Err(parsed.diagnostics);
        }
        overrides.apply(&mut parsed.config);
        let settings = Self {
            path: path.map(Path::to_owned),
            mark,
            config: parsed.config,
            overrides: overrides.clone(),
            warnings: parsed.diagnostics.0,
            source,
            locations: parsed.locations,
        };
        let mistakes = settings.mistakes_of_flags();
        if mistakes.is_empty() { Ok(settings) } else { Err(Diagnostics(mistakes)) }
    }

    /// The same file and flags, read again.
    ///
    /// # Errors
    /// Everything wrong with the file now.
    pub fn reload(&self) -> Result<Self, Diagnostics> {
        Self::load(self.path.as_deref(), &self.overrides)
    }

    /// The policy of a cache; of a table without an entry if it is `None`.
    #[must_use]
    pub fn policy(&self, cache: Option<&str>) -> EffectivePolicy {
        policy::resolve(&self.config, cache, Some(&self.overrides.policy))
    }

    /// `file:line` of an option, if the file sets it.
    #[must_use]
    pub fn place(&self, path: &[&str]) -> Option<String> {
        let spans = self.locations.find(path)?;
        let position = self.source.position(spans.key.start);
        Some(format!("{}:{}", self.source.name, position.line))
    }

    /// An error about an option, for what only the database could tell.
    #[must_use]
    pub fn error_at(&self, path: &[&str], message: String, remedy: String) -> Diagnostic {
        let diagnostic = Diagnostic::error(message).remedy(remedy);
        if self.path.is_none() {
            return diagnostic;
        }
        let span = self.locations.nearest(path).map(|spans| spans.key.clone());
        diagnostic.at(&self.source, span)
    }

    fn mistakes_of_flags(&self) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        let server = &self.config.server;
        if !is_protected(server) {
            let open = [server.bind, server.admin_bind];
            let open = open.iter().find(|address| !address.ip().is_loopback());
            let address = open.map(ToString::to_string).unwrap_or_default();
            mistakes.push(
                Diagnostic::error(format!(
                    "other machines reach {address}, and no password is set"
                ))
                .remedy(
                    "give one with --password-env NAME, bind to 127.0.0.1, or say \
                         allow_remote_without_password = true in the file",
                ),
            );
        }
        if server.bind == server.admin_bind && server.bind.port() != 0 {
            let message = format!("Redis clients and administration cannot share {}", server.bind);
            mistakes.push(Diagnostic::error(message).remedy("choose another --admin-bind"));
        }
        let front = self.config.front.url.as_deref();
        if front.is_some_and(|url| UpstreamOptions::parse(url).is_err()) {
            mistakes.push(
                Diagnostic::error("--redis is not given the URL of a Redis").remedy(URL_REMEDY),
            );
        }
        for (name, origin) in &self.config.origins {
            if !origin.url.as_deref().is_none_or(database_url::is_known) {
                mistakes.push(
                    Diagnostic::error(format!(
                        "the database `{name}` has a URL of a kind that Larder does not know"
                    ))
                    .remedy(database_url::REMEDY),
                );
            }
        }
        // One problem shows with every cache: the first says it all.
        let problem = self.policy(None).to_policy().problems(true).into_iter().next();
        if let Some(problem) = problem {
            let remedy = problem.remedy_text().unwrap_or_default().to_owned();
            mistakes.push(Diagnostic::error(policy::without_remedy(&problem)).remedy(remedy));
        }
        mistakes
    }
}

fn read(path: &Path) -> Result<(Source, Option<FileMark>), Diagnostics> {
    use std::io::Read;
    let name = path.display().to_string();
    let refuse = |error: &std::io::Error| {
        let message = format!("the configuration {name} cannot be read: {error}");
        Diagnostics(vec![Diagnostic::error(message).remedy(
            "check the path; `larder config example > larder.toml` makes one to start from",
        )])
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(&error))?;
    // Before it is read: what is written to it afterwards makes it another one.
    let mark = file.metadata().ok().as_ref().and_then(FileMark::of);
    let mut bytes = Vec::new();
    // One byte more than allowed, so that the parser sees that it is too much.
    let limit = TEXT_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|error| refuse(&error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((Source { name, text }, mark)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let source = Source {
                name,
                text: String::from_utf8_lossy(&error.into_bytes()[..at]).into_owned(),
            };
            let mistake = Diagnostic::error("the file is not UTF-8 from here on");
            Err(Diagnostics(vec![mistake.remedy("save it as UTF-8").at(&source, Some(at..at))]))
        }
    }
}
