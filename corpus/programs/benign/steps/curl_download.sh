# Downloads over HTTP, with check sums.
rnd 3 9; n=$r; rnd 2000 60000
curl -s -o "Downloads/file-#1.bin" "$url/file-[1-$n]?size=$r"
curl -s -o Downloads/version "$url/version"
sha256sum Downloads/*.bin > Downloads/SUMS
sha256sum -c --quiet Downloads/SUMS
