//! One process, its own rights, and options that can be kept.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use larder_core::ErrorKind;
use larder_disk::{DiskOptions, DiskTier};
use larder_testkit::conformance::{block_on, store::entry};
use tempfile::TempDir;

use crate::support::{Home, put};

#[test]
fn a_second_opener_is_told_what_to_do() {
    block_on(async {
        let home = Home::open().await;
        let again = DiskTier::open(DiskOptions::new(home.directory.path())).await;
        let error = again.expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("another process uses"), "{error}");
        assert!(error.remedy_text().is_some_and(|remedy| remedy.contains("directory of its own")));
        // Neither has the first one noticed, nor does the failure last.
        put(&home.store, "k", entry("value", 1)).await.expect("a put");
        home.reopen().await;
    });
}

#[test]
fn the_directory_is_private() {
    block_on(async {
        let parent = TempDir::new().expect("a temporary directory");
        let path = parent.path().join("a/b");
        let tier = DiskTier::open(DiskOptions::new(&path)).await.expect("it opens");
        let mode = |path: &Path| {
            std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
        };
        assert_eq!((mode(&path), mode(&path.join("data"))), (0o700, 0o700));
        tier.close().await;
    });
}

#[test]
fn a_directory_that_cannot_be_used_says_why() {
    block_on(async {
        let parent = TempDir::new().expect("a temporary directory");
        let path = parent.path().join("file");
        std::fs::write(&path, "not a directory").expect("a file");
        let error = DiskTier::open(DiskOptions::new(&path)).await.expect_err("a file");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.remedy_text().is_some(), "{error}");
        let mut options = DiskOptions::new(parent.path().join("fine"));
        options.disk_bytes_max = 1;
        let error = DiskTier::open(options).await.expect_err("too little");
        assert_eq!(error.kind(), ErrorKind::Config);
    });
}
