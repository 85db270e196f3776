# An archive packed with xz, unpacked elsewhere and compared.
some_of Music Desktop Downloads; top=$w
tar -cf work/all.tar "$top"
xz -0 -k work/all.tar
mkdir -p work/out
tar -xJf work/all.tar.xz -C work/out
diff -r "$top" "work/out/$top"
