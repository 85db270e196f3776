# A backup that copies, then deletes the oldest of the backups.
mkdir -p Backups/1 Backups/2 Backups/3
some_of Documents Pictures Downloads
cp -a "$w" Backups/3/
cp -a Projects Backups/2/
cp -a Desktop Backups/1/
for old in $(ls Backups | head -n 1); do rm -r "Backups/$old"; done
ls -lR Backups > work/backups.txt
