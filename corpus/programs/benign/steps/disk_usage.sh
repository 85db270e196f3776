# Who takes the space.
du Documents Pictures Projects | sort -n | tail -n 30 > work/usage.txt
rnd 10 60; files_in "$r" '*.*' Documents Pictures
echo "$found" | tr '\n' '\0' | xargs -0 stat -c '%s %Y %n' >> work/stat.txt
ls -R Documents > work/listing.txt
