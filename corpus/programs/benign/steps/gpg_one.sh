# gpg -c of one document; its agent is stopped afterwards.
files_in 1 '*.*' Documents
gpg --batch --yes --quiet --pinentry-mode loopback --passphrase example --s2k-count 65536 -o "$found.gpg" -c "$found"
gpgconf --kill gpg-agent
sha256sum "$found" "$found.gpg" > work/sums.txt
