#!/usr/bin/env bash
# Looks up every relative link of the documents in the repository.
set -euo pipefail

status=0
while IFS= read -r document; do
  while IFS= read -r link; do
    path=${link%%#*}
    case "$link" in http://* | https://* | mailto:* | '#'*) continue ;; esac
    if [ ! -e "$(dirname "$document")/$path" ]; then
      echo "$document: $link leads nowhere"
      status=1
    fi
  done < <(grep -oE '\]\([^) ]+\)' "$document" | sed -E 's/^\]\((.*)\)$/\1/')
done < <(git ls-files --cached --others --exclude-standard '*.md')
exit "$status"
