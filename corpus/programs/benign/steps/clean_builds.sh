# Build leftovers and old downloads are deleted.
for d in Projects/*/src; do cp "$d/main.c" "$d/main.o"; touch "$d/core.tmp" "$d/old~"; done
find Projects \( -name '*.o' -o -name '*.tmp' -o -name '*~' \) | sort | xargs rm -f
find Downloads -name '*.zip' -mtime +1 | sort | head -n 5 | tr '\n' '\0' | xargs -0 -r rm
rm -rf .cache/thumbs
