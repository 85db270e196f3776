# gzip over texts and tables: the originals are replaced, as gzip does.
rnd 6 20; files_in "$r" '*.csv' Documents Desktop Downloads
echo "$found" | tr '\n' '\0' | xargs -0 gzip -k
find Documents -name '*.md' | sort | head -n 12 | xargs gzip
