# Pages are fetched and their words counted.
rnd 2 5
curl -s -o "work/page-#1" "$url/page-[1-$r]?size=4000"
cat work/page-* | od -An -tx1 | tr ' ' '\n' | sort | uniq -c | sort -rn | head -n 20 > work/counts.txt
curl -s "$url/version" > work/version
