/// A command of a console block.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// Where it stands in the file, counted from one.
    pub(super) line: usize,
    pub(super) command: String,
    output: Vec<String>,
}

impl Step {
    /// Whether the command runs until it is stopped.
    pub(super) fn is_server(&self) -> bool {
        let mut words = self.command.split_whitespace();
        words.any(|word| word == "serve") && words.all(|word| word != "--help")
    }

    /// Whether what was printed is what the block shows.
    pub(super) fn accepts(&self, printed: &str) -> bool {
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        self.output.is_empty() || lines_match(&self.output, &printed)
    }

    /// What the block shows.
    pub(super) fn expected(&self) -> String {
        self.output.join("\n")
    }
}

/// The commands of every console block of a Markdown text, in order. A command
/// that ends with `\` goes on in the next line.
pub(super) fn steps(markdown: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    let mut continues = false;
    for (index, line) in markdown.lines().enumerate() {
        let line = line.trim_end();
        if !inside {
            inside = line.trim_start() == "```console";
            continues = false;
            if inside {
                // Output belongs to a command of its own block.
                steps.push(Step { line: index + 1, command: String::new(), output: Vec::new() });
            }
            continue;
        }
        if line.trim_start() == "```" {
            inside = false;
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            let command = command.to_owned();
            continues = command.ends_with('\\');
            steps.push(Step { line: index + 1, command, output: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            if continues {
                step.command.push('\n');
                step.command.push_str(line);
                continues = line.ends_with('\\');
            } else {
                step.output.push(line.to_owned());
            }
        }
    }
    steps.retain(|step| !step.command.is_empty());
    steps
}

fn lines_match(patterns: &[String], lines: &[&str]) -> bool {
    let Some((pattern, patterns_left)) = patterns.split_first() else {
        return lines.is_empty();
    };
    if is_ellipsis(pattern.trim()) {
        return (0..=lines.len()).any(|skipped| lines_match(patterns_left, &lines[skipped..]));
    }
    match lines.split_first() {
        Some((line, lines_left)) => {
            line_matches(pattern, line) && lines_match(patterns_left, lines_left)
        }
        None => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let pattern = pattern.replace('…', "...");
    let mut pieces = pattern.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn is_ellipsis(text: &str) -> bool {
    matches!(text, "..." | "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(command: &str, output: &[&str]) -> Step {
        let output = output.iter().map(ToString::to_string).collect();
        Step { line: 1, command: command.into(), output }
    }

    #[test]
    fn only_console_blocks_are_run_and_output_stays_with_its_command() {
        let text = "# T\n```sh\n$ rm -r x\n```\n```console\n$ a \\\n  b\none\ntwo\n$ c\n```\n$ d\n";
        let found = steps(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].command.as_str()), (6, "a \\\n  b"));
        assert_eq!(found[0].expected(), "one\ntwo");
        assert_eq!((found[1].command.as_str(), found[1].expected().as_str()), ("c", ""));
    }

    #[test]
    fn an_ellipsis_stands_for_text_or_for_lines() {
        let exact = step("x", &["a 1 ms", "b"]);
        assert!(exact.accepts("a 1 ms\nb\n"));
        assert!(!exact.accepts("a 2 ms\nb\n"));
        assert!(!exact.accepts("a 1 ms\nb\nc\n"));
        let within = step("x", &["a ... ms", "…", "z"]);
        assert!(within.accepts("a 17 ms\nz"));
        assert!(within.accepts("a 17 ms\nb\nc\nz"));
        assert!(!within.accepts("a 17 s\nz"));
        assert!(!within.accepts("a 17 ms\nb"));
        assert!(step("x", &[]).accepts("anything"));
    }

    #[test]
    fn servers_are_told_from_commands() {
        assert!(step("cargo run --release -- serve --demo", &[]).is_server());
        assert!(!step("larder serve --help", &[]).is_server());
        assert!(!step("redis-cli -p 6380 GET serve:1", &[]).is_server());
    }
}
