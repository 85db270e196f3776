# A repository is packed.
cd "Projects/$(ls Projects | tail -n 1)"
git init -q .
git add -A
git commit -q -m first
git repack -q -a -d
git archive --format=tar HEAD > "$HOME/work/head.tar"
