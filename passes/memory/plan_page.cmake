# plan_page.cmake -- joins plan_page.{html,css,js} into one text and writes it as a C array.
# cmake -D DIR=passes/memory -D OUT=plan_page.c -P plan_page.cmake
foreach(part html css js)
  file(READ ${DIR}/plan_page.${part} ${part})
endforeach()
string(REPLACE "@CSS@" "${css}" page "${html}")
string(REPLACE "@JS@" "${js}" page "${page}")
file(WRITE ${OUT}.page "${page}")
file(READ ${OUT}.page hex HEX)
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
file(WRITE ${OUT} "/* Made from plan_page.html, .css and .js by plan_page.cmake. */\n#include \"passes/memory/report.h\"\n\nconst char plan_page[] = {\n${hex}0};\n")
