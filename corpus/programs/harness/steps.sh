# Begins every shell job and shell emulation: checks the marker and gives random numbers by seed.
set -eu
case "$(cat "$HOME/.decoy-home")" in "made-up files for recordings"*) ;; *) exit 3 ;; esac
state=$1 port=$2 peer=$3
url=http://$peer:$port
cd "$HOME"
# Paths with blanks are one word.
IFS='
'

# rnd LOW HIGH: the next random number, in $r.
rnd() {
    state=$(((state * 1103515245 + 12345) % 2147483648))
    r=$(($1 + (state / 65536) % ($2 - $1 + 1)))
}

# some_of WORDS...: one of the words, in $w.
some_of() {
    rnd 1 $#
    shift $((r - 1))
    w=$1
}

# files_in N PATTERN FOLDERS...: up to N files, in $found, separated by newlines.
files_in() {
    most=$1 pattern=$2
    shift 2
    found=$(find "$@" -type f -name "$pattern" ! -name .decoy-home | sort | awk -v seed="$state" -v most="$most" \
        'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort -n | cut -f2- | head -n "$most")
}
