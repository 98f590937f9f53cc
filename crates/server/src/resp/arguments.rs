//! A command's arguments kept beyond the buffer they arrived in: for commands
//! that wait and commands that `MULTI` queues.

/// Copies of arguments, in two allocations however many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnedArguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl OwnedArguments {
    /// Copies these arguments.
    pub(crate) fn new(arguments: &[&[u8]]) -> Self {
        let mut bytes = Vec::with_capacity(arguments.iter().map(|argument| argument.len()).sum());
        let ends = arguments
            .iter()
            .map(|argument| {
                bytes.extend_from_slice(argument);
                bytes.len()
            })
            .collect();
        Self { bytes, ends }
    }

    /// The arguments as handlers take them.
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        let mut start = 0;
        self.ends.iter().map(|&end| &self.bytes[std::mem::replace(&mut start, end)..end]).collect()
    }

    /// What they take in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_they_were() {
        let arguments: [&[u8]; 4] = [b"SET", b"", b"key", b"\r\n"];
        assert_eq!(OwnedArguments::new(&arguments).slices(), arguments);
    }
}
