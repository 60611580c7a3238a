//! Who a session's program is run as, by the instance's own `/etc/passwd` and `/etc/group` (`passwd(5)`, `group(5)`).

/// A user of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub id: u32,
    pub group: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    pub home: String,
    pub shell: String,
}

/// The user of a name, if `passwd` has him. Who is root needs no entry.
pub fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let groups = || group.lines().filter_map(|line| member(line, name)).collect();
    passwd.lines().find_map(|line| entry(line, name)).map(|user| User { groups: groups(), ..user }).or_else(|| {
        (name == "root").then(|| User {
            name: name.to_owned(),
            id: 0,
            group: 0,
            groups: Vec::new(),
            home: "/root".into(),
            shell: "/bin/sh".into(),
        })
    })
}

fn entry(line: &str, name: &str) -> Option<User> {
    let [of, _password, id, group, _comment, home, shell] = line.split(':').collect::<Vec<_>>()[..] else { return None };
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    (of == name).then_some(())?;
    Some(User {
        name: name.to_owned(),
        id: id.parse().ok()?,
        group: group.parse().ok()?,
        groups: Vec::new(),
        home: or(home, "/"),
        shell: or(shell, "/bin/sh"),
    })
}

/// The group of a line, if the user is among its members.
fn member(line: &str, name: &str) -> Option<u32> {
    let [_group, _password, id, members] = line.split(':').collect::<Vec<_>>()[..] else { return None };
    members.split(',').any(|member| member == name).then(|| id.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:100:Ada,,,:/home/ada:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:ada,bob\naudio:x:29:bob\nusers:x:100:\n";

    #[test]
    fn users_are_found_with_their_groups() {
        let ada = find("ada", PASSWD, GROUP);
        let expected =
            User { name: "ada".into(), id: 1000, group: 100, groups: vec![10], home: "/home/ada".into(), shell: "/bin/sh".into() };
        assert_eq!(ada, Some(expected));
        assert_eq!(find("bob", PASSWD, GROUP), None);
        assert_eq!(find("root", "", "").map(|root| (root.id, root.home)), Some((0, "/root".into())));
    }
}
