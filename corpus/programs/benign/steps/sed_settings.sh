# Settings and texts are changed in place by sed; a copy of each setting is kept.
find .config \( -name '*.conf' -o -name '*.ini' \) | sort | xargs sed -i.bak -e 's/ = /=/' -e '/^$/d'
rnd 5 25; files_in "$r" '*.txt' Documents Desktop
echo "$found" | tr '\n' '\0' | xargs -0 sed -i 's/budget/Budget/g'
