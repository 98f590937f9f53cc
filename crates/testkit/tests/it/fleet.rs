//! Fleets of programs that every machine with these tests has.

use std::path::PathBuf;
use std::process::Command;

use larder_testkit::fleet::{Fleet, Node, Ready, shift_wall_clock};

fn program(name: &str) -> PathBuf {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut paths = std::env::split_paths(&paths).map(|directory| directory.join(name));
    paths.find(|path| path.is_file()).unwrap_or_else(|| panic!("{name} is installed"))
}

fn redis(node: &Node, command: &mut Command) {
    let configuration = node.write("own.conf", &format!("port {}\n", node.port("redis")));
    command.arg(configuration).args(["--save", ""]);
}

fn ping(node: &Node) -> String {
    let port = node.port("redis").to_string();
    let output = Command::new("redis-cli").args(["-p", &port, "PING"]).output();
    String::from_utf8_lossy(&output.expect("redis-cli is installed").stdout).trim().to_owned()
}

#[test]
fn nodes_are_killed_paused_and_restarted_one_by_one() {
    let ready = Ready::output("Ready to accept connections");
    let fleet = Fleet::start(&program("redis-server"), 3, ready, redis);
    let ports: Vec<u16> = fleet.nodes().iter().map(|node| node.port("redis")).collect();
    assert_eq!(fleet.nodes().iter().map(ping).collect::<Vec<_>>(), ["PONG"; 3]);

    fleet.node(1).kill();
    assert_eq!((ping(fleet.node(1)), ping(fleet.node(2))), (String::new(), "PONG".to_owned()));
    fleet.node(2).pause();
    assert_eq!(fleet.awake().map(Node::place).collect::<Vec<_>>(), [0]);
    assert!(fleet.node(2).is_running());
    fleet.node(2).resume();
    fleet.node(1).start();
    let before = fleet.node(0).process_id();
    fleet.node(0).restart();
    assert_ne!(fleet.node(0).process_id(), before);
    assert_eq!(fleet.nodes().iter().map(ping).collect::<Vec<_>>(), ["PONG"; 3]);
    assert_eq!(fleet.nodes().iter().map(|node| node.port("redis")).collect::<Vec<_>>(), ports);

    let starts = |output: &str| output.matches("Ready to accept connections").count();
    assert_eq!(starts(&fleet.node(0).output()), 2, "the output of every run is kept");
    assert_eq!(starts(&fleet.node(0).output_of_this_run()), 1);
    assert!(fleet.node(0).output().contains("Received SIGTERM"), "it was asked to end");
    assert!(fleet.output().contains("── node 2 of redis-server"));
    let addresses: Vec<_> = fleet.nodes().iter().map(|node| node.address("redis")).collect();
    drop(fleet);
    for address in addresses {
        assert!(std::net::TcpStream::connect(address).is_err(), "every node has ended");
    }
}

#[test]
fn a_page_tells_that_a_node_is_ready() {
    let ready = Ready::page("http", "/ready");
    let fleet = Fleet::start(&program("python3"), 2, ready, |node, command| {
        node.write("ready", &format!("node {}", node.place()));
        command.args(["-m", "http.server", "--bind", "127.0.0.1"]);
        command.arg(node.port("http").to_string());
    });
    for node in fleet.nodes() {
        assert_eq!(node.page("http", "/ready"), (200, format!("node {}", node.place())));
        assert_eq!(node.page("http", "/missing").0, 404);
    }
    fleet.node(0).kill();
    assert!(fleet.node(0).try_page("http", "/ready").is_err());
}

#[test]
fn one_that_ends_at_once_says_why() {
    let ready = Ready::output("Ready");
    let fleet = Fleet::prepare(&program("redis-server"), 1, ready, |_, command| {
        command.arg("--no-such-option");
    });
    let said = fleet.node(0).try_start().expect_err("it ends");
    assert!(said.contains("exit status: 1") && said.contains("no-such-option"), "{said}");
    assert!(!fleet.node(0).is_running());
}

#[test]
fn a_node_lives_an_hour_ahead_by_its_wall_clock_only() {
    let print = "import time; print(int(time.time()), int(time.monotonic()))";
    let clocks = |seconds: i64| -> Vec<i64> {
        let mut command = Command::new("python3");
        shift_wall_clock(&mut command, seconds);
        let output = command.args(["-c", print]).output().expect("python3 is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    };
    let (ahead, behind) = (clocks(3_600), clocks(-3_600));
    // As many seconds as a busy machine may take between the two.
    assert!((7_000..7_201).contains(&(ahead[0] - behind[0])), "{ahead:?} {behind:?}");
    assert!((0..200).contains(&(behind[1] - ahead[1])), "{ahead:?} {behind:?}");
}
