//! What a visitor does from outside: fetch pages, and log in.

use std::{io, net::Ipv4Addr, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// The page at an address.
pub async fn fetch(address: Ipv4Addr, port: u16) -> io::Result<String> {
    let fetched = async {
        let mut stream = TcpStream::connect((address, port)).await?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        match answer.split_once("\r\n\r\n") {
            Some((head, page)) if head.contains(" 200 ") => Ok(page.trim().to_owned()),
            Some((head, _)) => Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    timeout(ANSWERS_WITHIN, fetched).await?
}

/// Whether this machine can log in anywhere by ssh.
pub fn has_ssh() -> bool {
    let found = |name: &str| ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|place| Path::new(place).join(name).exists());
    found("ssh") && found("sshd")
}

/// What a command says that is run by ssh.
pub async fn ssh(key: &Path, user: &str, address: Ipv4Addr, port: u16, command: &str) -> io::Result<Result<String, String>> {
    let mut ssh = Command::new("ssh");
    for option in ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"] {
        ssh.args(["-o", option]);
    }
    ssh.arg("-i").arg(key).args(["-p", &port.to_string()]).arg(format!("{user}@{address}")).arg(command);
    let output = timeout(ANSWERS_WITHIN * 2, ssh.stdin(Stdio::null()).kill_on_drop(true).output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}
