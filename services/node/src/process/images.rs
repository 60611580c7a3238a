//! What is in the images that ship: programs of the host, and for some a boot script of their own.

/// An image whose instances run the host's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Files in the root volume, from its top, with their contents and whether they are programs.
    pub files: &'static [File],
    /// Run at every boot.
    pub boot_script: Option<&'static str>,
    /// Who logs in by SSH, if anybody does.
    pub user: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    pub path: &'static str,
    pub text: &'static str,
    pub program: bool,
}

const PLAIN: Image = Image { files: &[], boot_script: None, user: Some("ec2-user") };

const WEB: Image = Image {
    files: &[
        File { path: "var/www/html/index.html", text: include_str!("../../images/web/index.html"), program: false },
        File { path: "etc/gureum/boot", text: include_str!("../../images/web/boot"), program: true },
    ],
    boot_script: Some("etc/gureum/boot"),
    user: Some("ec2-user"),
};

/// The distributions' names stand for what the host has: their instances run its programs too.
/// Each has the user that the distribution's images have.
const WITH_PROGRAMS_OF_THE_HOST: [(&str, &str); 5] =
    [("amazon-linux-", "ec2-user"), ("ubuntu-", "ubuntu"), ("debian-", "admin"), ("gureum-shell", "ec2-user"), ("gureum-python", "ec2-user")];

/// The image that a source names, if its contents are known here.
pub fn find(source: &str) -> Option<Image> {
    if source.starts_with("gureum-web") {
        return Some(WEB);
    }
    let known = WITH_PROGRAMS_OF_THE_HOST.iter().find(|(prefix, _)| source.starts_with(prefix));
    known.map(|(_, user)| Image { user: Some(user), ..PLAIN })
}
