# A repository is made of a project; commits on a branch, a merge.
cd "Projects/$(ls Projects | head -n 1)"
git init -q .
git add -A
git commit -q -m first
git checkout -q -b change
rnd 1 2; n=$r
while [ "$n" -gt 0 ]; do echo "line $n" >> notes.txt; git commit -q -a -m "change $n"; n=$((n - 1)); done
git checkout -q main
git merge -q change
