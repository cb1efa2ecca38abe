//! What libmfq.so shows to the linker.

mod support;

use std::process::Command;

/// In the order of the alphabet.
const EXPORTED: [&str; 37] = [
    "mfq_abi_version",
    "mfq_abort",
    "mfq_append",
    "mfq_append_batch",
    "mfq_appendv",
    "mfq_claim",
    "mfq_close",
    "mfq_commit",
    "mfq_event_fd",
    "mfq_file_info",
    "mfq_file_release",
    "mfq_find",
    "mfq_flush",
    "mfq_flush_start",
    "mfq_get_last",
    "mfq_install_sigbus_guard",
    "mfq_last_errno",
    "mfq_last_error",
    "mfq_offsets",
    "mfq_open",
    "mfq_options_init",
    "mfq_read",
    "mfq_reader_close",
    "mfq_reader_next",
    "mfq_reader_open",
    "mfq_reader_seek",
    "mfq_recovery",
    "mfq_set_log",
    "mfq_stats",
    "mfq_strerror",
    "mfq_truncate_after",
    "mfq_truncate_before",
    "mfq_version",
    "mfq_view",
    "mfq_view_release",
    "mfq_wait",
    "mfq_walk_rocketmq",
];

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let nm = support::stdout(
        Command::new("nm").args(["-D", "--defined-only"]).arg(support::library_dir().join("libmfq.so")),
    );
    let mut found: Vec<&str> = nm.lines().filter_map(|line| line.split_whitespace().last()).collect();
    found.sort_unstable();
    assert_eq!(found, EXPORTED);
}

#[test]
fn the_library_has_a_soname_and_is_never_unloaded() {
    let dynamic =
        support::stdout(Command::new("readelf").args(["-d", "-W"]).arg(support::library_dir().join("libmfq.so")));
    assert!(dynamic.contains("Library soname: [libmfq.so.0]"), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_library_runs_nothing_when_the_process_ends() {
    let symbols = support::stdout(
        Command::new("nm").args(["-D", "--undefined-only"]).arg(support::library_dir().join("libmfq.so")),
    );
    assert!(!symbols.lines().any(|line| line.contains(" atexit") || line.contains("on_exit")), "{symbols}");
}
