# Files get lower-case names without blanks, by mv.
rnd 4 10; files_in "$r" '*.*' Pictures Downloads Documents
for f in $found; do mv "$f" "${f%/*}/new-${f##*/}"; done
