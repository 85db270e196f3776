# The compiler on one file, an archive of the result.
cd "Projects/$(ls Projects | tail -n 1)/src"
some_of -O0 -O1 -O2; flag=$w
for f in $(ls *.c | head -n 2); do cc "$flag" -c "$f" -o "$HOME/work/${f%.c}.o"; done
ar rcs "$HOME/work/libparts.a" "$HOME"/work/*.o
nm "$HOME/work/libparts.a" > "$HOME/work/symbols.txt"
