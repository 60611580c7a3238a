//! What is run of an instance's user data, at its first boot.
//!
//! A script is run as it is. Cloud-config becomes a script. What begins as some other form of cloud-init's, or is
//! cloud-config with a fault, becomes a script that says so and fails: the boot goes on, and nobody takes it for done.

mod cloud_config;
mod shell;
mod yaml;

/// What user data comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserData {
    /// The program that is run.
    pub program: Option<Vec<u8>>,
    /// What the machine says of it on its console.
    pub notes: Vec<String>,
}

/// Forms that are not run, by how they begin, in small letters: cloud-init would.
const OTHER_FORMS: [(&[u8], &str); 10] = [
    (b"\x1f\x8b", "compressed by gzip"),
    (b"content-type:", "a MIME message"),
    (b"mime-version:", "a MIME message"),
    (b"#include", "a list of addresses (#include)"),
    (b"#cloud-config-archive", "a #cloud-config-archive"),
    (b"#cloud-config-jsonp", "a #cloud-config-jsonp"),
    (b"#cloud-boothook", "a #cloud-boothook"),
    (b"#part-handler", "a #part-handler"),
    (b"#upstart-job", "an #upstart-job"),
    (b"## template:", "a template"),
];

/// What is to be run of it.
pub fn read(user_data: &[u8]) -> UserData {
    if user_data.is_empty() {
        return UserData::default();
    }
    if user_data.starts_with(b"#!") {
        return UserData { program: Some(user_data.to_vec()), notes: Vec::new() };
    }
    let start = user_data[..user_data.len().min(32)].to_ascii_lowercase();
    if let Some((_, form)) = OTHER_FORMS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return failing(&format!("the user data is {form}, which is not run here: give one script, or one #cloud-config, as plain text"));
    }
    if start.starts_with(b"#cloud-config") {
        let Ok(text) = std::str::from_utf8(user_data) else {
            return failing("the user data is #cloud-config that is not UTF-8");
        };
        return match cloud_config::read(text) {
            Ok(config) => {
                let ignored = config.ignored.join(", ");
                let notes = if ignored.is_empty() { Vec::new() } else { vec![format!("cloud-config: these keys are ignored: {ignored}")] };
                UserData { program: Some(config.script().into_bytes()), notes }
            }
            Err(fault) => failing(&format!("nothing of the cloud-config is done: {fault}")),
        };
    }
    // It may be meant for a program that asks the metadata service for it.
    let note = "the user data is not run: what is to be run begins with #! and an interpreter, as in #!/bin/sh, or with #cloud-config";
    UserData { program: None, notes: vec![note.into()] }
}

/// A script that says why nothing is done, and fails.
fn failing(why: &str) -> UserData {
    let script = format!("#!/bin/sh\necho {} >&2\nexit 1\n", shell::word(&why.replace(['\0', '\\'], "?")));
    UserData { program: Some(script.into_bytes()), notes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn program(user_data: &[u8]) -> String {
        String::from_utf8(read(user_data).program.unwrap()).unwrap()
    }

    #[test]
    fn each_form_of_user_data_is_what_it_is() {
        assert_eq!(read(b""), UserData::default());
        assert_eq!(program(b"#!/bin/sh\necho hi\n"), "#!/bin/sh\necho hi\n");
        let told = read(b"colour = blue\n");
        assert!(told.program.is_none() && told.notes[0].contains("is not run"), "{told:?}");
        let other: [(&[u8], &str); 4] = [
            (b"Content-Type: multipart/mixed; boundary=x\n", "a MIME message"),
            (b"\x1f\x8b\x08\0", "compressed by gzip"),
            (b"#include\nhttp://one\n", "a list of addresses"),
            (b"#cloud-config\n\xff", "not UTF-8"),
        ];
        for (user_data, words) in other {
            let script = program(user_data);
            assert!(script.contains(words) && script.ends_with("exit 1\n"), "{script}");
        }
        assert!(program(b"#cloud-config\nruncmd: [\n").contains("nothing of the cloud-config is done: line 3"));
        assert_eq!(read(b"#cloud-config\nusers: []\nhostname: web\n").notes, ["cloud-config: these keys are ignored: users, hostname"]);
    }

    proptest! {
        #[test]
        fn whatever_it_is_the_boot_goes_on(user_data in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&user_data);
            read(&[b"#cloud-config\n", &user_data[..]].concat());
        }
    }
}
