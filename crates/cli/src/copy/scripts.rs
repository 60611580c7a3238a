//! What is run in the instance for a copy, by its own shell, with its own `tar`: nothing of Gureum's needs to be in it.

/// Takes the archive of one item to `$1`: into it under the name `$2` where it is a directory, else as it. It is unpacked
/// beside its place and put there whole, so that nobody sees a part of it and nothing is left of a copy that breaks off.
pub const PUSH: &str = r#"
to=${1:-.} name=$2
if [ -d "$to" ]; then
    into=$to
else
    case $to in */) echo "$to: no such directory" >&2; exit 1 ;; esac
    into=$(dirname -- "$to") name=$(basename -- "$to")
fi
[ -d "$into" ] || { echo "$into: no such directory" >&2; exit 1; }
new=$(mktemp -d "$into/.gureum-cp-XXXXXX") || exit 1
trap 'rm -rf -- "$new"' EXIT
trap 'exit 1' HUP INT TERM PIPE
tar -x -p -o -f - -C "$new" || exit 1
[ -e "$new/item" ] || { echo "the copy broke off" >&2; exit 1; }
place=$into/$name
if [ -d "$new/item" ] && [ -d "$place" ]; then
    cp -R -p "$new/item/." "$place/"
elif [ -d "$place" ]; then
    echo "$place: is a directory" >&2; exit 1
elif [ -d "$new/item" ] && [ -e "$place" ]; then
    echo "$place: is there and is no directory" >&2; exit 1
else
    mv -f -- "$new/item" "$place"
fi
"#;

/// Gives the archive of `$1`, a directory only where `$2` is "r". What a link leads to is given in its place where it is the
/// item itself; links within a directory stay links.
pub const PULL: &str = r#"
from=$1
if [ -d "$from" ]; then
    [ "$2" = r ] || { echo "$from: is a directory; --recursive copies it" >&2; exit 1; }
    cd -- "$from" && exec tar -c -f - .
elif [ -e "$from" ]; then
    cd -- "$(dirname -- "$from")" && exec tar -c -h -f - "./$(basename -- "$from")"
else
    echo "$from: no such file or directory" >&2; exit 1
fi
"#;
