//! The commands by which an instance shuts itself down: they tell its process 1, which takes the signals that the inits of
//! BusyBox and sysvinit take.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Writes the commands into a directory, for a process 1 of this number. A shutdown that waits is noted in `run`.
pub fn write(directory: &Path, init: u32, run: &Path) -> io::Result<()> {
    for (name, text) in [("shutdown", SHUTDOWN), ("poweroff", POWEROFF), ("halt", HALT), ("reboot", REBOOT)] {
        let path = directory.join(name);
        fs::write(&path, text.replace("@INIT@", &init.to_string()).replace("@RUN@", &run.to_string_lossy()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

const POWEROFF: &str =
    "#!/bin/sh\n# Ends the instance: its shutdown behaviour decides whether it is then stopped or terminated.\nexec kill -s USR2 @INIT@\n";
const HALT: &str =
    "#!/bin/sh\n# Ends the instance: its shutdown behaviour decides whether it is then stopped or terminated.\nexec kill -s USR1 @INIT@\n";
const REBOOT: &str = "#!/bin/sh\n# Restarts the instance with its disk and addresses.\nexec kill -s TERM @INIT@\n";
const SHUTDOWN: &str = r#"#!/bin/sh
# shutdown [-r] [-h|-P|-H] [-c] [now|+MINUTES] [MESSAGE]
signal=USR2 when=+1
for argument; do
    case $argument in
    -r | --reboot) signal=TERM ;;
    -h | -P | --poweroff) signal=USR2 ;;
    -H | --halt) signal=USR1 ;;
    -c) [ -f "@RUN@/shutdown" ] && kill "$(cat "@RUN@/shutdown")" && rm -f "@RUN@/shutdown"; exit ;;
    now) when=+0 ;;
    +[0-9]*) when=$argument ;;
    [0-9]*:[0-9]*) echo "shutdown: $argument: a time of day is not supported here; use now or +MINUTES" >&2; exit 1 ;;
    -*) echo "shutdown: $argument is not known; usage: shutdown [-r] [-h|-P|-H] [-c] [now|+MINUTES] [MESSAGE]" >&2; exit 1 ;;
    *) echo "$argument" ;;
    esac
done
minutes=${when#+}
[ "$minutes" -eq 0 ] && exec kill -s $signal @INIT@
(sleep $((minutes * 60)) && exec kill -s $signal @INIT@) </dev/null >/dev/null 2>&1 &
echo $! >"@RUN@/shutdown"
echo "shutdown in $minutes minutes; shutdown -c cancels it"
"#;
