/// The methods by which a test controls a process, for the `impl` of a type that
/// has it in a [`ProcessSlot`](super::ProcessSlot) named `process`.
macro_rules! controls {
    () => {
        /// The number of its process.
        ///
        /// # Panics
        /// If it does not run.
        #[must_use]
        pub fn process_id(&self) -> u32 {
            self.process.id()
        }

        /// Whether it runs, standing still included.
        #[must_use]
        pub fn is_running(&self) -> bool {
            self.process.is_running()
        }

        /// Whether it runs and does not stand still.
        #[must_use]
        pub fn is_awake(&self) -> bool {
            self.process.is_awake()
        }

        /// Makes it stand still, by SIGSTOP: it neither answers nor breaks
        /// connections. Nothing happens if it does not run.
        pub fn pause(&self) {
            self.process.pause();
        }

        /// Makes it go on after [`Self::pause`].
        pub fn resume(&self) {
            self.process.resume();
        }

        /// Ends it at once, by SIGKILL. Nothing happens if it does not run.
        pub fn kill(&self) {
            self.process.kill();
        }
    };
}

pub(crate) use controls;
