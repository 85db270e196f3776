# Who takes the space.
du -a . | sort -n | tail -n 30 > work/usage.txt
rnd 10 60; files_in "$r" '*.*' Documents Pictures
echo "$found" | tr '\n' '\0' | xargs -0 stat -c '%s %Y %n' >> work/stat.txt
ls -lR Pictures > work/listing.txt
