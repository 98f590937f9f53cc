//! What is wrong with a configuration: where, what, and what to do.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::redact;
use super::source::Source;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration works, and probably not as meant.
    Warning,
    /// The configuration works, and this is worth knowing.
    Information,
}

/// One thing wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file's name, if it concerns a file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong, with the offending value and the limit.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The line of text, secrets blotted out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    #[serde(skip)]
    underline: usize,
}

impl Diagnostic {
    /// An error that no file location belongs to.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            line: None,
            column: None,
            message: message.into(),
            remedy: None,
            excerpt: None,
            underline: 0,
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same as something worth knowing.
    #[must_use]
    pub fn as_information(mut self) -> Self {
        self.severity = Severity::Information;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds the place.
    #[must_use]
    pub fn at(mut self, source: &Source, span: Option<Range<usize>>) -> Self {
        self.file = Some(source.name.clone());
        let Some(span) = span else { return self };
        let position = source.position(span.start);
        self.line = Some(position.line);
        self.column = Some(position.column);
        let line = source.line(span.start);
        let shown = redact::line(line);
        if shown == line {
            let end = span.end.min(source.text.len());
            let text = source.text.get(span.start..end).unwrap_or_default();
            self.underline = text.lines().next().unwrap_or_default().chars().count().max(1);
        }
        self.excerpt = Some(shown.chars().take(EXCERPT_MAX).collect());
        self
    }

    /// Whether the configuration cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `file:line:column`, as far as it is known.
    #[must_use]
    pub fn place(&self) -> String {
        let mut place = self.file.clone().unwrap_or_default();
        for part in [self.line, self.column].into_iter().flatten() {
            place.push_str(&format!(":{part}"));
        }
        place
    }

    /// On one line, for a log.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut text = self.place();
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&self.message);
        if let Some(remedy) = &self.remedy {
            text.push_str("; ");
            text.push_str(remedy);
        }
        text
    }
}

/// A longer line is cut: nobody reads it in a terminal.
const EXCERPT_MAX: usize = 160;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Information => "information",
        };
        let place = self.place();
        if place.is_empty() {
            write!(f, "{severity}: {}", self.message)?;
        } else {
            write!(f, "{place}: {severity}: {}", self.message)?;
        }
        if let (Some(line), Some(column), Some(excerpt)) = (self.line, self.column, &self.excerpt) {
            let gutter = line.to_string().len().max(4);
            write!(f, "\n{line:>gutter$} | {excerpt}")?;
            if self.underline > 0 && column <= EXCERPT_MAX {
                let before: String = excerpt
                    .chars()
                    .take(column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                let marks = "^".repeat(self.underline.min(EXCERPT_MAX + 1 - column));
                write!(f, "\n{:gutter$} | {before}{marks}", "")?;
            }
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n     = {remedy}")?;
        }
        Ok(())
    }
}

/// Everything wrong with a configuration, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether anything makes the configuration unusable.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(Diagnostic::is_error)
    }

    /// The errors alone.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|diagnostic| diagnostic.is_error())
    }

    /// The warnings alone.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning)
    }

    /// Puts them in the order of the file; what has no place comes first.
    pub fn sort(&mut self) {
        self.0.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
