use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a server may take to answer a command of a test.
const REPLY_WAIT: Duration = Duration::from_secs(60);

/// A reply of RESP2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// `+OK` and its like.
    Status(String),
    /// An error, its code first.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Neither bytes nor a list.
    Nil,
    /// A list.
    Array(Vec<Reply>),
}

impl Reply {
    /// The text of a status, of bytes or of a number.
    ///
    /// # Panics
    /// If it is anything else, an error in particular.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Integer(number) => number.to_string(),
            other => panic!("not a text: {other:?}"),
        }
    }

    /// The number.
    ///
    /// # Panics
    /// If it is anything else, an error in particular.
    #[must_use]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The items of a list.
    ///
    /// # Panics
    /// If it is anything else, an error in particular.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// Whether it is an error.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// A connection of a test to a server, past every port, proxy and TLS: through
/// a socket in the server's own directory. Blocks.
#[derive(Debug)]
pub struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(super) fn open(socket: &Path, password: Option<&str>) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(REPLY_WAIT))?;
        let mut connection = Self(BufReader::new(stream));
        if let Some(password) = password {
            connection.call(&["AUTH", password])?;
        }
        Ok(connection)
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// If the server does not answer, or not in RESP2.
    pub fn call<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<Reply> {
        self.send(command)?;
        self.read()
    }

    /// Sends a command only.
    ///
    /// # Errors
    /// If the server is gone.
    pub fn send<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<()> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            let argument = argument.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)
    }

    /// Sets how long a reply is waited for; a minute at first.
    ///
    /// # Errors
    /// If the duration is zero.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(patience))
    }

    /// Waits for the next reply: also what a subscription or
    /// `MONITOR` sends.
    ///
    /// # Errors
    /// If none comes, or not in RESP2.
    pub fn read(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").ok_or_else(|| strange(&line))?;
        let Some((kind, rest)) = line.split_at_checked(1) else { return Err(strange(line)) };
        let number = || rest.parse::<i64>().map_err(|_| strange(line));
        Ok(match kind {
            "+" => Reply::Status(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Integer(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => Reply::Bulk(self.read_bulk(length)?),
                Err(_) => Reply::Nil,
            },
            "*" => match usize::try_from(number()?) {
                Ok(count) => {
                    Reply::Array((0..count).map(|_| self.read()).collect::<Result<_, _>>()?)
                }
                Err(_) => Reply::Nil,
            },
            _ => return Err(strange(line)),
        })
    }

    fn read_bulk(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.0.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn strange(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply of RESP2: {line:?}"))
}
