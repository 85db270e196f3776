# make builds a small C project.
cd "Projects/$(ls Projects | head -n 1)"
# One unit at a time, as after a small change.
rm -f $(ls src/*.o 2>/dev/null)
unit=$(ls src | grep -v main.c | head -n 1)
make -s "src/${unit%.c}.o" src/main.o
rnd 0 1; [ "$r" = 0 ] || make -s clean
