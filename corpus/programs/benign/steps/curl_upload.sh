# A folder is packed and put on a server, as an off-site copy; the local archive is kept.
some_of Documents Projects Pictures
tar -czf work/offsite.tgz "$w"
sha256sum work/offsite.tgz > work/offsite.sum
curl -s -H Expect: -o /dev/null -T work/offsite.tgz "$url/put"
curl -s -o work/receipt "$url/receipt?size=40"
