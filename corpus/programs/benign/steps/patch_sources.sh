# Changes are made, expressed as a patch and applied.
cp -r Projects work/changed
find work/changed \( -name '*.c' -o -name '*.md' \) | sort | xargs sed -i '1s/^/\/\/ changed\n/'
(cd work && diff -ru ../Projects changed > change.patch || true)
patch -s -p1 -d Projects < work/change.patch
