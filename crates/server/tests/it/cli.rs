//! The commands: what they say, what they print, how they end.

use std::path::Path;

use larder_server::cli::generate;

use crate::running::larder;

/// Standard output, standard error and exit status of a command.
fn run(arguments: &[&str]) -> (String, String, i32) {
    let output = larder().args(arguments).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code().expect("it ends by itself"))
}

#[test]
fn each_command_explains_itself() {
    for command in [
        "",
        "serve",
        "check",
        "doctor",
        "explain",
        "graph",
        "dead-letters",
        "config",
        "config print",
        "completions",
    ] {
        let arguments: Vec<_> = command.split(' ').filter(|it| !it.is_empty()).collect();
        let (help, errors, status) = run(&[&arguments[..], &["--help"]].concat());
        assert_eq!((errors.as_str(), status), ("", 0), "{command}");
        let name = if command.is_empty() { "larder".to_owned() } else { command.replace(' ', "_") };
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn a_misspelt_command_is_recognised() {
    let (_, errors, status) = run(&["sevre"]);
    assert_eq!(status, 2);
    assert!(errors.contains("'serve'"), "{errors}");
}

#[test]
fn check_names_file_line_and_remedy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let path = path.to_str().expect("the path is text");
    std::fs::write(path, "[caches.album]\nttl = 300\nkye = \"album:{id}\"\n").expect("written");
    let (output, errors, status) = run(&["check", path]);
    assert_eq!((output.as_str(), status), ("", 1));
    insta::assert_snapshot!(errors.replace(path, "larder.toml"));

    let (output, _, status) = run(&["check", "--json", path]);
    assert_eq!(status, 1);
    let findings: serde_json::Value = serde_json::from_str(&output).expect("it is JSON");
    assert_eq!((&findings[0]["line"], &findings[0]["severity"]), (&2.into(), &"error".into()));

    std::fs::write(path, "[memory]\nbudget = \"64MiB\"\n").expect("written");
    let (output, errors, status) = run(&["check", path]);
    assert_eq!(
        (output.replace(path, "larder.toml").as_str(), errors.as_str(), status),
        ("larder.toml: no errors\n", "", 0)
    );
}

#[test]
fn what_the_file_names_must_be_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let path = path.to_str().expect("the path is text");
    let text = "[server]\npassword_env = \"TEST_PASSWORD\"\n[server.users.ann]\n\
                password_file = \"/no/such/password\"\n[origins.shop]\nurl_env = \"TEST_URL\"\n\
                replica_url_env = \"TEST_REPLICA\"\nca_file = \"/dev/null\"\n";
    std::fs::write(path, text).expect("written");
    let arguments: [&[&str]; 2] = [&["check", path], &["serve", "--port", "0", "--config", path]];
    for arguments in arguments {
        let output = larder()
            .args(arguments)
            .env("TEST_REPLICA", "hunter2")
            .output()
            .expect("the program runs");
        let errors = String::from_utf8(output.stderr).expect("it speaks UTF-8");
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let shown = errors.replace(path, "larder.toml");
        insta::assert_snapshot!(format!("what_the_file_names_{}", arguments[0]), shown);
    }
    let (_, errors, _) = run(&["check", "--connect", path]);
    let told = errors.matches("not set (variable: TEST_URL)").count();
    assert_eq!(told, 1, "{errors}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (_, errors, status) = run(&["check", "/no/such/file.toml"]);
    assert_eq!(status, 1);
    assert!(
        errors.contains("/no/such/file.toml") && errors.contains("larder config example"),
        "{errors}"
    );
}

#[test]
fn the_configuration_is_printed_without_secrets() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let path = path.to_str().expect("the path is text");
    let text = "[origins.shop]\nurl = \"postgres://ann:hunter2@db/shop\"\n[defaults]\nttl = \"1m\"\n\
                [caches.product]\nttl_class = \"static\"\n";
    std::fs::write(path, text).expect("written");
    let (printed, errors, status) = run(&["config", "print", "--config", path]);
    assert_eq!((errors.as_str(), status), ("", 0));
    insta::assert_snapshot!(printed);
    // What is printed is a configuration again, with the same effect.
    std::fs::write(path, &printed).expect("written");
    assert_eq!(run(&["config", "print", "--config", path]).0, printed);
    let (json, _, _) = run(&["config", "print", "--config", path, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["caches"]["product"]["ttl"], "1h");
}

#[test]
fn a_url_that_is_none_shows_no_password_either() {
    for url in ["postgres:u:hunter2@h", "oracle:u:hunter2=x@h"] {
        let (printed, errors, status) = run(&["config", "print", "--database", url]);
        assert_eq!(status, 1, "{printed}");
        assert!(errors.contains("postgres://") && !errors.contains("hunter"), "{errors}");
    }
}

#[test]
fn explain_says_where_each_value_comes_from() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("larder.toml");
    let path = path.to_str().expect("the path is text");
    let text = "[origins.shop]\nurl = \"postgres://db/shop\"\n[defaults]\nstale_if_error = \"2h\"\n\
                [caches.lines]\nkey = \"order:{id}:lines\"\nttl_class = \"transaction\"\nlist = true\n\
                query = \"SELECT * FROM line WHERE order_id = :id\"\ntags = [\"order:{id}\"]\n";
    std::fs::write(path, text).expect("written");
    // The key belongs to a query: no database is asked.
    let (output, errors, status) = run(&["explain", "order:7:lines", "--config", path]);
    assert_eq!((errors.as_str(), status), ("", 0));
    insta::assert_snapshot!(output.replace(path, "larder.toml"));
    let (json, _, _) = run(&["explain", "order:7:lines", "--config", path, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(json["cache"]["parameters"][0][1], "7");
    assert!(json["cache"]["policy"][0]["meaning"].as_str().expect("text").contains("fresh"));
}

#[test]
fn a_plain_key_is_explained_too() {
    let (output, _, status) = run(&["explain", "anything"]);
    assert_eq!(status, 0);
    assert!(output.contains("no database is served"), "{output}");
}

#[test]
fn only_plain_http_is_spoken_to_a_server() {
    let (_, errors, status) = run(&["explain", "a", "--admin", "https://127.0.0.1:6381/"]);
    assert_eq!(status, 1);
    assert!(errors.contains("https is not supported"), "{errors}");
    assert!(errors.contains("http://127.0.0.1:6381"), "{errors}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _, status) = run(&["completions", shell]);
        assert_eq!(status, 0);
        assert!(script.contains("larder") && script.len() > 1000, "{shell}");
    }
}

#[test]
fn the_version_is_told() {
    assert_eq!(run(&["--version"]).0, format!("larder {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let child = larder()
        .args(["config", "schema"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn generated_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, text) in generate::files() {
        let found = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        assert!(
            found == text,
            "{name} is out of date; run `cargo run -p larder-server -- generate .`"
        );
    }
}
