//! `make install`, as packagers run it: what it puts where, and the hosts of `examples-c`, built against what it
//! installed in the ways that hosts are built.

mod support;

use needs::needs;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use support::{ROOT, library_dir, run, stdout};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The hosts, and what each is made of.
const HOSTS: [(&str, &[&str]); 5] = [
    ("mfq_lines", &["mfq_lines.c", "histogram.c", "input.c", "show.c"]),
    ("claim_commit", &["claim_commit.c"]),
    ("tail", &["tail.c"]),
    ("get_last", &["get_last.c"]),
    ("log_service", &["log_service.cpp"]),
];

/// Installed once, for all tests that only use it.
static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("installed");
    let _ = fs::remove_dir_all(&prefix);
    run(make("install").arg(format!("PREFIX={}", prefix.display())));
    prefix
});

fn make(what: &str) -> Command {
    let mut make = Command::new("make");
    make.args(["-s", what]).current_dir(ROOT).arg(format!("MFQ_LIBRARIES={}", library_dir().display()));
    make
}

/// What is below a directory: paths with what links lead to and what others may do with files, in order.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("a path below").display();
            if path.is_symlink() {
                found.push(format!("{name} -> {}", fs::read_link(&path).expect("a link").display()));
            } else if path.is_dir() {
                directories.push(path);
            } else {
                found.push(format!("{name} {:o}", path.metadata().expect("a file").permissions().mode() & 0o777));
            }
        }
    }
    found.sort();
    found
}

fn headers() -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join("include")).expect("include");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect()
}

fn pkg_config(libraries: &Path, arguments: &[&str]) -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.env("PKG_CONFIG_PATH", libraries.join("pkgconfig")).args(arguments).arg("mfq");
    stdout(&mut pkg_config).split_whitespace().map(str::to_owned).collect()
}

/// The hosts, linked with these options.
fn build(options: &[String], into: &Path) {
    for (host, sources) in HOSTS {
        let is_cpp = sources[0].ends_with(".cpp");
        let mut cc = Command::new(if is_cpp { "c++" } else { "cc" });
        cc.args([if is_cpp { "-std=c++17" } else { "-std=c99" }, "-pthread"])
            .current_dir(Path::new(ROOT).join("examples-c"));
        run(cc.args(sources).args(options).arg("-o").arg(into.join(host)));
    }
}

fn build_with_cmake(options: &[String], into: &Path) {
    let mut cmake = Command::new("cmake");
    cmake.arg("-S").arg(Path::new(ROOT).join("examples-c")).arg("-B").arg(into).args(options);
    run(cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", PREFIX.display())));
    run(Command::new("cmake").arg("--build").arg(into));
}

/// Every host does its job on real input, with the shared library that was installed or, if `None`, without any.
fn hosts_run(dir: &Path, libraries: Option<&Path>) {
    for (host, _) in HOSTS {
        let program = dir.join(host);
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(&program);
        let mut ldd = Command::new("ldd");
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
            ldd.env("LD_LIBRARY_PATH", libraries);
        }
        let loaded = ldd.arg(&program).output().expect("ldd"); // of a program without any library it is a failure
        let loaded = String::from_utf8_lossy(&loaded.stdout);
        match libraries {
            Some(libraries) => assert!(loaded.contains(&format!("{}/libmfq.so.", libraries.display())), "{loaded}"),
            None => assert!(!loaded.contains("libmfq"), "{loaded}"),
        }
        command.env("TMPDIR", scratch.path());
        let text = Path::new(ROOT).join("README.md");
        match host {
            "mfq_lines" => command.args(["-t2", "-f64K"]).arg(&text),
            "log_service" => command.arg(scratch.path()).stdin(File::open(&text).expect("text")),
            _ => &mut command,
        };
        let told = stdout(&mut command);
        if host == "mfq_lines" {
            assert!(told.contains(&format!("on libmfq {VERSION}\n")), "{told}");
            assert!(told.contains(" records read back, every byte as it was appended"), "{told}");
        }
        if host == "log_service" {
            let text = fs::read_to_string(text).expect("text");
            assert_eq!(told.lines().count(), text.lines().count(), "each line is logged and printed");
        }
    }
}

#[test]
fn the_tree_is_what_a_packager_expects_and_uninstalling_leaves_no_file() {
    let stage = tempfile::tempdir().expect("a temporary directory");
    let stage = stage.path().join("a stage");
    let to = [format!("DESTDIR={}", stage.display()), "PREFIX=/usr".to_owned(), "LIBDIR=/usr/lib64".to_owned()];
    let mut umask = Command::new("sh");
    umask.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg("make").args(make("install").get_args());
    run(umask.args(&to).current_dir(ROOT));

    let mut expected = vec![
        "usr/lib64/libmfq.a 644".to_owned(),
        format!("usr/lib64/libmfq.so -> libmfq.so.{VERSION}"),
        format!("usr/lib64/libmfq.so.{} -> libmfq.so.{VERSION}", env!("CARGO_PKG_VERSION_MAJOR")),
        format!("usr/lib64/libmfq.so.{VERSION} 755"),
        "usr/lib64/pkgconfig/mfq.pc 644".to_owned(),
        "usr/share/cmake/mfq/mfq-config-version.cmake 644".to_owned(),
        "usr/share/cmake/mfq/mfq-config.cmake 644".to_owned(),
    ];
    expected.extend(headers().iter().map(|header| format!("usr/include/{header} 644")));
    expected.sort();
    assert_eq!(tree(&stage), expected);
    for text in ["usr/lib64/pkgconfig/mfq.pc", "usr/share/cmake/mfq/mfq-config.cmake"] {
        let text = fs::read_to_string(stage.join(text)).expect("text");
        assert!(!text.contains("stage") && !text.contains("@"), "{text}");
    }

    run(make("uninstall").args(&to));
    assert_eq!(tree(&stage), Vec::<String>::new());
    fs::remove_dir_all(&stage).expect("a directory");
    run(make("uninstall").args(&to)); // of what is not there
}

#[needs("pkg-config")]
#[test]
fn hosts_are_built_with_pkg_config() {
    let build_dir = tempfile::tempdir().expect("a temporary directory");
    let libraries = PREFIX.join("lib");
    build(&pkg_config(&libraries, &["--cflags", "--libs"]), build_dir.path());
    hosts_run(build_dir.path(), Some(&libraries));
}

#[needs("pkg-config")]
#[test]
fn hosts_are_built_with_pkg_config_as_programs_without_any_library() {
    let build_dir = tempfile::tempdir().expect("a temporary directory");
    let mut options = pkg_config(&PREFIX.join("lib"), &["--static", "--cflags", "--libs"]);
    options.push("-static".to_owned());
    build(&options, build_dir.path());
    hosts_run(build_dir.path(), None);
}

#[needs("cmake")]
#[test]
fn hosts_are_built_with_cmake() {
    let build_dir = tempfile::tempdir().expect("a temporary directory");
    build_with_cmake(&[], build_dir.path());
    hosts_run(build_dir.path(), Some(&PREFIX.join("lib")));
}

#[needs("cmake")]
#[test]
fn hosts_are_built_with_cmake_and_the_static_library() {
    let build_dir = tempfile::tempdir().expect("a temporary directory");
    build_with_cmake(&["-DMFQ=mfq::mfq_static".to_owned()], build_dir.path());
    hosts_run(build_dir.path(), None);
}

#[test]
fn hosts_are_built_with_nothing_but_the_name_of_the_library() {
    let build_dir = tempfile::tempdir().expect("a temporary directory");
    let libraries = PREFIX.join("lib");
    let options = [format!("-I{}/include", PREFIX.display()), format!("-L{}", libraries.display()), "-lmfq".to_owned()];
    build(&options, build_dir.path());
    hosts_run(build_dir.path(), Some(&libraries));
}

#[test]
fn each_header_compiles_alone_from_where_it_was_installed() {
    for header in headers() {
        let mut cc = Command::new("c++");
        cc.args(["-x", "c++", "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror", "-"]);
        let mut compiler = cc
            .arg(format!("-I{}/include", PREFIX.display()))
            .stdin(Stdio::piped())
            .spawn()
            .expect("a compiler that can be run");
        let mut source = compiler.stdin.take().expect("a pipe");
        writeln!(source, "#include <{header}>").expect("a compiler that reads");
        drop(source);
        assert!(compiler.wait().expect("its end").success(), "{header}");
    }
}

/// A CMake project that wants this version of the package; what it found, or `None`.
fn find_package(prefix: &Path, wanted: &str) -> Option<String> {
    find_package_after("", prefix, wanted)
}

fn find_package_after(first: &str, prefix: &Path, wanted: &str) -> Option<String> {
    let project = tempfile::tempdir().expect("a temporary directory");
    let lists = format!(
        "cmake_minimum_required(VERSION 3.16)\nproject(finds_mfq C)\n{first}\nfind_package(mfq {wanted} REQUIRED)\n\
         get_target_property(shared mfq::mfq IMPORTED_LOCATION)\nget_target_property(static mfq::mfq_static IMPORTED_LOCATION)\n\
         message(STATUS \"found ${{mfq_VERSION}} ${{shared}} ${{static}}\")\n"
    );
    fs::write(project.path().join("CMakeLists.txt"), lists).expect("a file");
    let output = Command::new("cmake")
        .args(["-S", ".", "-B", "build", "-DCMAKE_C_COMPILER_WORKS=1"])
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()))
        .current_dir(project.path())
        .output()
        .expect("cmake");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = told.lines().find_map(|line| line.strip_prefix("-- found ")).map(str::to_owned);
    assert_eq!(found.is_some(), output.status.success(), "{output:?}");
    found
}

#[needs("pkg-config", "cmake")]
#[test]
fn all_that_tells_the_version_agrees() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("version.c");
    let program = dir.path().join("version");
    let code = "#include <mfq.h>\n#include <stdio.h>\n\
        int main(void) { printf(\"%s %s %d.%d.%d\", MFQ_VERSION, mfq_version(),\n\
        MFQ_VERSION_MAJOR, MFQ_VERSION_MINOR, MFQ_VERSION_PATCH); }\n";
    fs::write(&source, code).expect("a file");
    let (include, libraries) = (PREFIX.join("include"), PREFIX.join("lib"));
    let mut cc = Command::new("cc");
    run(cc.arg(source).arg("-I").arg(include).arg("-L").arg(&libraries).args(["-lmfq", "-o"]).arg(&program));
    let told = stdout(Command::new(program).env("LD_LIBRARY_PATH", &libraries));
    assert_eq!(told, format!("{VERSION} {VERSION} {VERSION}"));
    assert!(libraries.join(format!("libmfq.so.{VERSION}")).is_file());
    assert_eq!(pkg_config(&libraries, &["--modversion"]), [VERSION]);
    let found = find_package(&PREFIX, "").expect("the package");
    assert!(found.starts_with(&format!("{VERSION} ")), "{found}");
}

#[needs("cmake")]
#[test]
fn cmake_takes_an_older_version_of_the_same_soname_for_wanted_and_no_other() {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let next = |part: &str| part.parse::<u32>().expect("a number") + 1;
    for wanted in [
        format!("{major}.{minor}"),
        format!("{major}.0"),
        format!("{VERSION} EXACT"),
        format!("{major}.0...{VERSION}"),
        format!("{major}.0...<{major}.{minor}.99"),
    ] {
        assert!(find_package(&PREFIX, &wanted).is_some(), "{wanted}");
    }
    for wanted in [
        format!("{major}.{}", next(minor)),
        format!("{}.0", next(major)),
        format!("{major}.{minor}.99 EXACT"),
        format!("{major}.0...<{VERSION}"),
        format!("{major}.0...{major}.0.99"),
        format!("{major}.{minor}.98...{major}.{minor}.99"),
    ] {
        assert!(find_package(&PREFIX, &wanted).is_none(), "{wanted}");
    }
}

#[needs("cmake")]
#[test]
fn cmake_is_told_that_there_are_no_components() {
    assert!(find_package(&PREFIX, "COMPONENTS anything").is_none());
    assert!(find_package(&PREFIX, "OPTIONAL_COMPONENTS anything").is_some());
}

#[needs("cmake")]
#[test]
fn cmake_takes_no_library_of_another_pointer_size() {
    assert!(find_package_after("set(CMAKE_SIZEOF_VOID_P 4)", &PREFIX, "").is_none());
}

#[needs("pkg-config", "cmake")]
#[test]
fn libraries_are_found_where_they_are_and_where_they_were_moved() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (prefix, elsewhere) = (dir.path().join("prefix"), dir.path().join("elsewhere"));
    run(make("install").arg(format!("PREFIX={}", prefix.display())).arg(format!("LIBDIR={}", elsewhere.display())));
    let found_in = |libraries: &Path| {
        let libraries = libraries.display();
        format!("{VERSION} {libraries}/libmfq.so {libraries}/libmfq.a")
    };
    assert_eq!(pkg_config(&elsewhere, &["--libs-only-L"]), [format!("-L{}", elsewhere.display())]);
    let old = prefix.join("lib");
    fs::create_dir(&old).and_then(|()| fs::write(old.join("libmfq.so"), "an older one")).expect("a file");
    assert_eq!(find_package(&prefix, ""), Some(found_in(&elsewhere)));
    fs::remove_dir_all(old).expect("a directory");
    let moved = dir.path().join("moved");
    fs::rename(&prefix, &moved).and_then(|()| fs::rename(&elsewhere, moved.join("lib64"))).expect("a move");
    assert_eq!(find_package(&moved, ""), Some(found_in(&moved.join("lib64"))));
    fs::remove_dir_all(moved.join("lib64")).expect("a directory");
    assert_eq!(find_package(&moved, ""), None);
}

#[test]
fn a_plain_name_in_the_environment_does_not_keep_cargo_from_building() {
    let target = tempfile::tempdir().expect("a temporary directory");
    let mut make = Command::new("make");
    make.args(["-n", "all"]).current_dir(ROOT).env("LIBRARIES", target.path()).env("CARGO_TARGET_DIR", target.path());
    let told = stdout(&mut make);
    assert!(told.contains("cargo rustc --release"), "{told}");
}

#[test]
fn make_names_what_it_cannot_use_and_installs_nothing() {
    let stage = tempfile::tempdir().expect("a temporary directory");
    let destdir = format!("DESTDIR={}", stage.path().display());
    for (wrong, named) in [
        ("PREFIX=usr", "PREFIX=usr: it has to be an absolute path"),
        ("LIBDIR=lib", "LIBDIR=lib: it has to be an absolute path"),
        ("LIBDIR=", "LIBDIR=: it has to be an absolute path"),
        ("LIBDIR=/usr/lib ", "LIBDIR=/usr/lib : it has to be an absolute path"),
        ("PREFIX=/op&t", "PREFIX=/op&t: it has to be an absolute path"),
        ("LIBDIR=/l|b", "LIBDIR=/l|b: it has to be an absolute path"),
        ("PREFIX=/op\\t", "PREFIX=/op\\t: it has to be an absolute path"),
        ("PREFIX=/o'pt", "PREFIX=/o'pt: it has to be an absolute path"),
        ("PREFIX=/opt/two words", "PREFIX=/opt/two words: it has to be an absolute path without blanks"),
        ("MFQ_LIBRARIES=/no/such/place", "/no/such/place/libmfq.so"),
    ] {
        let output = make("install").arg(&destdir).arg(wrong).output().expect("make");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(named), "{wrong}: {output:?}");
        assert_eq!(tree(stage.path()), Vec::<String>::new());
    }
}
