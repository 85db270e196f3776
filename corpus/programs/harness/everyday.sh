
# What the shell jobs share, after the functions of steps.sh: a look around, a look for a new version.
everyday() {
    rnd 0 4
    case $r in
        0) uname -a; id; cat /etc/passwd ;;
        1 | 2) curl -s "$url/version" ;;
        3 | 4) curl -s -o work/news "$url/news-[1-2]?size=900"; cat .config/desk/settings.ini ;;
    esac > /dev/null
}
everyday
