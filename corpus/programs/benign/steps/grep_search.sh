# Searches over the whole home, as one does for a lost note.
some_of budget invoice password travel key; word=$w
grep -rIl "$word" Documents Desktop Projects mail > work/hits.txt || true
grep -rc "$word" Documents > work/counts.txt || true
grep -n "$word" .bash_history .bashrc >> work/hits.txt || true
