# A large file is split, joined and compared; the parts are deleted.
cat Pictures/*.* Music/*.* Documents/*.* > work/whole
rnd 4000 20000
split -b "$r" work/whole work/part-
cat work/part-* > work/again
cmp work/whole work/again
rm work/part-*
