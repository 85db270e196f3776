# A line editor over several texts.
rnd 5 9; files_in "$r" '*.txt' Documents Desktop Projects
echo "$found" | while read -r f; do [ -z "$f" ] || printf '1i\n%s\n.\n$a\nend\n.\nw\nq\n' "$f" | ed -s "$f"; done
