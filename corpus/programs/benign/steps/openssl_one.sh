# A document is encrypted with a pass phrase, checked and kept beside the original.
rnd 1 2; files_in "$r" '*.*' Documents
for f in $found; do
    openssl enc -aes-256-cbc -pbkdf2 -iter 100 -pass pass:example -in "$f" -out "$f.enc"
    openssl enc -d -aes-256-cbc -pbkdf2 -iter 100 -pass pass:example -in "$f.enc" | cmp - "$f"
done
openssl dgst -sha256 Desktop/* > work/sums.txt
