# A line editor over several texts.
rnd 5 9; files_in "$r" '*.txt' Documents Desktop Projects
for f in $found; do printf '1i\n%s\n.\n$a\nend\n.\nw\nq\n' "$f" | ed -s "$f"; done
