//! What scripts of cloud-config do, by running them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use proptest::prelude::*;

use super::*;

fn run(config: &str) -> Output {
    let script = read(config).unwrap_or_else(|fault| panic!("{fault}\n{config}")).script();
    Command::new("/bin/sh").arg("-c").arg(&script).output().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn fault(config: &str) -> String {
    read(config).unwrap_err().to_string()
}

#[test]
fn files_are_written_and_commands_run_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let ran = run(&format!(
        "#cloud-config
bootcmd:
  - echo early > {at}/early; exit 0
write_files:
  - path: {at}/deep/er/plain
    content: |
      it's 100% \\n
      $HOME
  - {{path: {at}/secret, content: aGkA, encoding: b64, permissions: '0600'}}
  - path: {at}/packed
    encoding: gzip+base64
    permissions: 0755
    content: H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA==
  - path: {at}/early
    append: true
    content: more
runcmd:
  - cd {at}
  - cat deep/er/plain
  - [sh, -c, 'echo \"$1\" \"$0\"', 'a  b', \"it's\"]
  - |
    for word in one two; do
      echo $word
    done
"
    ));
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "it's 100% \\n\n$HOME\nit's a  b\none\ntwo\n");
    let at = folder.path();
    assert_eq!(fs::read(at.join("secret")).unwrap(), b"hi\0");
    assert_eq!((mode(&at.join("secret")), mode(&at.join("packed")), mode(&at.join("deep/er/plain"))), (0o600, 0o755, 0o644));
    assert_eq!(fs::read(at.join("packed")).unwrap(), b"hello");
    assert_eq!(fs::read(at.join("early")).unwrap(), b"early\nmore");
}

#[test]
fn what_fails_first_is_its_exit_code_and_the_rest_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let ran = run(&format!("runcmd:\n  - [sh, -c, exit 3]\n  - 'false'\n  - touch {at}/done\n"));
    assert_eq!(ran.status.code(), Some(3));
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(told.contains("item 1 of runcmd failed with exit code 3") && told.contains("item 2 of runcmd"), "{told}");
    assert!(folder.path().join("done").exists());
    let ran = run("write_files:\n  - {path: /proc/none/such, content: x}\nbootcmd: [exit 4]\n");
    assert_eq!(ran.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("write_files of /proc/none/such failed"), "{ran:?}");
    // A command that spans items is still one.
    assert_eq!(run("runcmd:\n  - if true; then\n  - exit 7\n  - fi\n").status.code(), Some(7));
}

#[test]
fn what_is_not_done_is_refused_with_its_line_or_noted() {
    assert!(fault("#cloud-config\npackages: [nginx]\n").starts_with("line 2: packages: packages are not installed here"));
    assert!(fault("#cloud-config\n\npackage_update: true\n").starts_with("line 3: package_update"));
    assert_eq!(read("package_update: false\npackages: []\nhostname: web\n").unwrap().ignored, ["package_update", "packages", "hostname"]);
    assert_eq!(fault("runcmd:\n  - echo a\n  - echo b: c\n").split(':').next(), Some("line 3"));
    assert_eq!(fault("runcmd: echo\n"), "line 1: runcmd is a list: items with - before them");
    assert_eq!(fault("- a\n"), "line 1: a cloud-config is a map: keys with a colon behind them");
    assert_eq!(fault("write_files:\n- content: a\n"), "line 2: an item of write_files has a path, from / on");
    assert!(fault("write_files:\n- {path: /a, permissions: 0999}\n").contains("octal"));
    assert!(fault("write_files:\n- {path: /a, encoding: rot13}\n").contains("rot13"));
    assert!(fault("write_files:\n- {path: /a, encoding: b64,\n   content: '?'}\n").starts_with("line 3: the content of /a is not base64"));
    assert!(fault("runcmd: [\"a\\0b\"]\n").contains("zero byte"));
    assert_eq!(read("").unwrap(), CloudConfig::default());
}

/// A text as YAML has it in double quotes, which JSON's are.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn words_and_contents_arrive_as_they_are(words in prop::collection::vec("[ -~\n'\"\\\\$`é]{0,12}", 1..4), content in "[ -~\n'\"\\\\%$`é]{0,40}") {
        let folder = tempfile::tempdir().unwrap();
        let (path, words_of) = (folder.path().join("it's a file"), |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "));
        let config = format!(
            "write_files: [{{path: {}, content: {}}}]\nruncmd: [[printf, '%s\\n', {}]]\n",
            quoted(&path.display().to_string()), quoted(&content), words_of(&words)
        );
        let ran = run(&config);
        prop_assert!(ran.status.success(), "{:?}", ran);
        prop_assert_eq!(fs::read(&path).unwrap(), content.into_bytes());
        prop_assert_eq!(ran.stdout, words.iter().map(|word| format!("{word}\n")).collect::<String>().into_bytes());
    }
}
