"""What SSIS expressions give: each group by the page of Microsoft's documentation that its results come from."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from airflow_provider_smtpcm.ssis.expressions import DataType, ExpressionError, TypeSpec, Value, dates, evaluate

VARIABLES = {
    "User::Name": "Touring Front Wheel",
    "User::Path": "c:\\program files\\data\\myfile.txt",
    "User::Times": 5,
    "User::Big": 3_000_000_000,
    "User::Yes": True,
    "User::Rate": 2.5,
    "User::name": "lower",
    "User::Nothing": None,
    "User::Due": dt.datetime.fromisoformat("2005-03-04 11:06:18"),
    "User::Midnight": dt.datetime.fromisoformat("2005-03-04 00:00:00"),
    "System::PackageName": "EmailRowCountPP",
    "System::StartTime": dt.datetime.fromisoformat("2005-03-04 11:06:18"),
    "$Project::Server": "relay.corp.example",
    "$Package::Limit": 3,
    "Custom::Count": 2,
    "ZipCode+4": "1234",
}

LITERALS = [  # "Numeric, string, and Boolean literals"
    ("457", "457"),
    ("785u", "785"),
    ("986L", "986"),
    ("7945ul", "7945"),
    ("7945LU", "7945"),
    ("0xFF0A", "65290"),
    ("0X000010000U", "65536"),
    ("0xFFFFFFFF", "-1"),
    (".9", "0.9"),
    ("6.", "6"),
    ("0.346", "0.346"),
    ("8.0", "8.0"),
    ("6.45E3f", "6450"),
    (".5E-2l", "0.005"),
    ("1.05E+7F", "1.05E+07"),
    ("5E+1L", "50"),
    ("4E2l", "400"),
    ("TRUE", "True"),
    ("False", "False"),
    ("tRuE", "True"),
    ('""', ""),
    (r'"a\tb"', "a\tb"),
    (r'"\a\b\f\n\r\t\v"', "\a\b\f\n\r\t\v"),
    (r'"say \"yes\""', 'say "yes"'),
    (r'"\\\\srv\\a.csv"', "\\\\srv\\a.csv"),
    (r'"\x20AC\x0041"', "€A"),
    (r'"\xD83D\xDE00"', "😀"),
    (r'"\xD83D"', "\ufffd"),
    ('"one\ntwo"', "one\ntwo"),
    ('"Grüße"', "Grüße"),
]
PRECEDENCE = [  # "Operator Precedence and Associativity"
    ("1 + 2 * 3", "7"),
    ("(1 + 2) * 3", "9"),
    ("10 - 4 - 3", "3"),
    ("100 / 10 / 5", "2"),
    ("2 * 3 % 4", "2"),
    ("1 + 1 < 3", "True"),
    ("1 < 2 == 2 < 3", "True"),
    ("1 == 1 && 2 == 3 || 4 == 4", "True"),
    ("TRUE || FALSE && FALSE", "True"),
    ("5 & 3 == 3 ? 1 : 2", None),  # == binds tighter than &, so a number meets a Boolean
    ("(5 & 3) == 1", "True"),
    ("1 | 2 ^ 3 & 1", "3"),
    ("-2 + 5", "3"),
    ("- -2", "2"),
    ("!FALSE && TRUE", "True"),
    ("!(TRUE && FALSE)", "True"),
    ("~0", "-1"),
    ('(DT_WSTR,5)1 + "2"', "12"),
    ('(DT_I4)"4" * 2', "8"),
    ("FALSE ? 1 : TRUE ? 2 : 3", "2"),
    ("TRUE ? FALSE ? 1 : 2 : 3", "2"),
    ('1 > 2 ? "a" : "b" + "c"', "bc"),
    ('-(DT_I4)"3"', "-3"),
    ("(DT_WSTR,3)(DT_I4)3.9", "3"),
]
ARITHMETIC = [  # "+ (Add)", "- (Subtract)", "* (Multiply)", "Divide", "Modulo", "Negate", "Data Types in Expressions"
    ("25 / 5", "5"),
    ("7 / 2", "3"),
    ("-7 / 2", "-3"),
    ("7 / -2", "-3"),
    ("7 % 3", "1"),
    ("-7 % 3", "-1"),
    ("7 % -3", "1"),
    ("7.5 % 2", "1.5"),
    ("23.75 * 4", "95.00"),
    ("1.10 + 2.2", "3.30"),
    ("1.5 * 1.5", "2.25"),
    ("1.5 - 2", "-0.5"),
    ("7 / 2.0", "3.500000"),
    ("1 / 3E0", "0.333333333333333"),
    ("2147483647 + 0", "2147483647"),
    ("2147483647L + 1", "2147483648"),
    ("@[User::Big] + 1", "3000000001"),
    ("2147483647 + 1", None),
    ("-2147483647 - 2", None),
    ("65536 * 65536", None),
    ("65536L * 65536", "4294967296"),
    ("4294967295U + 1U", None),
    ("1U + 1", "2"),
    ("1U - 2", "-1"),
    ("1UL + 1", None),
    ("1 / 0", None),
    ("1 % 0", None),
    ("1.0 / 0", None),
    ("1E0 / 0", None),
    ("1E308 * 10", None),
    ("TRUE + 1", None),
    ("GETDATE() + 1", None),
    ("6 & 3", "2"),
    ("6 | 3", "7"),
    ("6 ^ 3", "5"),
    ("~5", "-6"),
    ("~5U", "4294967290"),
    ("1.5 & 1", None),
    ("-1.5", "-1.5"),
    ('-"a"', None),
    ("!1", None),
]
TEXTS = [  # "+ (Concatenate)"; CODEPOINT, FINDSTRING, HEX, LEFT, LEN, LOWER, LTRIM, REPLACE, REPLICATE, REVERSE, …
    ('"a" + "b"', "ab"),
    ('"a" + 1', None),
    ('1 + "a"', None),
    ('"a" + TRUE', None),
    ('"on " + (DT_DBDATE)"2003-08-01"', "on 2003-08-01"),
    ('@[ZipCode+4] + "-" + @[ZipCode+4]', "1234-1234"),
    ('CODEPOINT("Mountain Bike")', "77"),
    ("CODEPOINT(@Name)", "84"),
    ('ISNULL(CODEPOINT(""))', "True"),
    ('FINDSTRING("New York, NY, NY", "NY", 1)', "11"),
    ('FINDSTRING("New York, NY, NY", "NY", 2)', "15"),
    ('FINDSTRING("New York, NY, NY", "NY", 3)', "0"),
    ('FINDSTRING("Anderson", "n", 2)', "8"),
    ('FINDSTRING("Mountain,500Red,42", "42", 1)', "17"),
    ('FINDSTRING("aaaa", "aa", 2)', "2"),
    ('FINDSTRING("abc", "B", 1)', "0"),
    ('FINDSTRING("abc", "b", 0)', None),
    ("HEX(400)", "190"),
    ("HEX(750)", "2EE"),
    ("HEX(1033)", "409"),
    ("HEX(-1)", "FFFFFFFF"),
    ("HEX((DT_I1)-1)", "FF"),
    ("HEX((DT_I8)-1)", "FFFFFFFFFFFFFFFF"),
    ("HEX(1.5)", None),
    ('LEFT("Mountain Bike", 8)', "Mountain"),
    ('LEFT("ab", 8)', "ab"),
    ('LEFT("ab", 0)', ""),
    ('LEFT("ab", -1)', None),
    ('LEN("Ball Bearing")', "12"),
    ('LEN("  a ")', "4"),
    ('LEN("")', "0"),
    ("LEN(12)", None),
    ('LOWER("AbC")', "abc"),
    ('UPPER("straße ﬁn é")', "STRAßE ﬁN É"),  # each character becomes one, as in Windows
    ('LOWER("İ ΟΔΟΣ É")', "İ οδοσ é"),
    ('LTRIM("   Hello ")', "Hello "),
    ('LTRIM("\\tHello")', "\tHello"),
    ('RTRIM(" Hello   ")', " Hello"),
    ('TRIM("   New York   ")', "New York"),
    ('REPLACE("Mountain Bike", "Mountain","All Terrain")', "All Terrain Bike"),
    ('REPLACE("Mountain Bike", "Bike","")', "Mountain "),
    ('REPLACE((DT_WSTR,8)1626,"6","5")', "1525"),
    ('REPLACE("aA", "A", "b")', "ab"),
    ('REPLACE("a", "", "b")', None),
    ('REPLICATE("Mountain Bike", 3)', "Mountain BikeMountain BikeMountain Bike"),
    ('REPLICATE("a", 0)', ""),
    ('REPLICATE("a", -1)', None),
    ('REPLICATE("abcdefghij", 2000000)', None),
    ('REVERSE("Mountain Bike")', "ekiB niatnuoM"),
    ('RIGHT("Mountain Bike", 4)', "Bike"),
    ("RIGHT(@Name, @Times)", "Wheel"),
    ("RIGHT(@Name, (DT_I2)4.32)", "heel"),
    ('RIGHT("ab", 5)', "ab"),
    ('RIGHT("ab", 0)', ""),
    ('RIGHT("ab", -1)', None),
    ('RIGHT("ab", 1.5)', None),
    ('SUBSTRING("elephant",4,2)', "ph"),
    ('SUBSTRING ("elephant",4,50)', "phant"),
    ('SUBSTRING ("Redmond",4,0)', ""),
    ('SUBSTRING("abc",9,1)', ""),
    ('SUBSTRING("abc",0,1)', None),
    ('SUBSTRING("abc",1,-1)', None),
    ('UPPER(SUBSTRING("color",1,1)) + LOWER(SUBSTRING("cOLOR",2,15))', "Color"),
    ('TOKEN("a little white dog"," ",1)', "a"),
    ('TOKEN("a:little|white dog","| ,.:",4)', "dog"),
    ('TOKEN("a little white dog"," ",99)', ""),
    ('TOKEN("a little white dog","|",1)', "a little white dog"),
    ('TOKEN("        a little white dog", " ", 1)', "a"),
    ('TOKEN("2009/01/01", "/", 1)', "2009"),
    ('TOKEN(@[User::Path], "\\\\", TOKENCOUNT(@[User::Path], "\\\\"))', "myfile.txt"),
    ('TOKEN("a]b^c", "]^", 3)', "c"),
    ('TOKEN("a", " ", 0)', None),
    ('TOKENCOUNT("01/12/2011", "/")', "3"),
    ('TOKENCOUNT("a little white dog"," ")', "4"),
    ('TOKENCOUNT("a little white dog","|")', "1"),
    ('TOKENCOUNT("a:little|white dog","| ,.:")', "4"),
    ('TOKENCOUNT("        a little white dog", " ")', "4"),
    ('TOKENCOUNT(NULL(DT_WSTR,5), " ")', "0"),
    ('upper("x")', "X"),
    ('[UPPER]("x")', "X"),
]
MATHEMATICS = [  # ABS, CEILING, EXP, FLOOR, LN, LOG, POWER, ROUND, SIGN, SQRT, SQUARE
    ("ABS(-5)", "5"),
    ("ABS(-5.25)", "5.25"),
    ("ABS((DT_I4)-2147483647 - 1)", None),
    ("CEILING(123.74)", "124.00"),
    ("CEILING(-1.5)", "-1.0"),
    ("CEILING(3)", "3"),
    ("FLOOR(123.74)", "123.00"),
    ("FLOOR(-1.5)", "-2.0"),
    ("FLOOR(2.5E0)", "2"),
    ("EXP(0)", "1"),
    ("EXP(1000)", None),
    ("LN(1)", "0"),
    ("LOG(97.34)", "1.98829134190749"),
    ("LOG(234.567)", "2.37026691346586"),
    ("ISNULL(LOG(0))", "True"),
    ("ISNULL(LN(-1))", "True"),
    ("POWER(4,3)", "64"),
    ("POWER(8,2)", "64"),
    ("POWER(4,0.5)", "2"),
    ("POWER(0,-1)", None),
    ("ISNULL(POWER(-8,0.5))", "True"),
    ("POWER(10,400)", None),
    ("ROUND(137.1574,3)", "137.1570"),
    ("ROUND(137.1575,3)", "137.1580"),
    ("ROUND(-2.5,0)", "-3.0"),
    ("ROUND(7,0)", "7"),
    ("ROUND(1.5,-1)", None),
    ("SIGN(-123.45)", "-1"),
    ("SIGN(0)", "0"),
    ("SIGN(9L)", "1"),
    ("SQRT(144)", "12"),
    ("SQRT(SQUARE(3) + SQUARE(4))", "5"),
    ("SQRT(-1)", None),
    ("SQUARE(12)", "144"),
    ('SQUARE("a")', None),
]
DATES = [  # DATEADD, DATEDIFF, DATEPART, DAY, MONTH, YEAR
    ('DATEADD("yyyy", 2, (DT_DBTIMESTAMP)"8/6/2003")', "2005-08-06 00:00:00"),
    ('DATEADD("Month", 1, (DT_DBTIMESTAMP)"2003-01-31")', "2003-02-28 00:00:00"),
    ('DATEADD("MM", -1, (DT_DBTIMESTAMP)"2004-03-31")', "2004-02-29 00:00:00"),
    ('DATEADD("qq", 1, (DT_DBTIMESTAMP)"2003-11-30")', "2004-02-29 00:00:00"),
    ('DATEADD("day", 21, (DT_DBTIMESTAMP)"2003-08-20")', "2003-09-10 00:00:00"),
    ('DATEADD("y", 1, (DT_DBDATE)"2003-12-31")', "2004-01-01 00:00:00"),
    ('DATEADD("dw", 1, (DT_DBDATE)"2003-12-31")', "2004-01-01 00:00:00"),
    ('DATEADD("wk", -1, (DT_DBDATE)"2003-01-01")', "2002-12-25 00:00:00"),
    ('DATEADD("Hh", 25, (DT_DBTIMESTAMP)"2003-08-06 10:00:00")', "2003-08-07 11:00:00"),
    ('DATEADD("mi", -1, (DT_DBTIMESTAMP)"2003-08-06")', "2003-08-05 23:59:00"),
    ('DATEADD("ss", 90, (DT_DBTIMESTAMP)"2003-08-06")', "2003-08-06 00:01:30"),
    ('DATEADD("Ms", 5, (DT_DBTIMESTAMP)"2003-08-06")', "2003-08-06 00:00:00.005000000"),
    ('DATEADD("fortnight", 1, GETDATE())', None),
    ('DATEADD("day", 1, "yesterday")', None),
    ('DATEADD("day", 1.5, GETDATE())', None),
    ('DATEADD("year", 9000, GETDATE())', None),
    ('DATEADD("day", 2000000000, GETDATE())', None),
    ('DATEDIFF("dd", (DT_DBTIMESTAMP)"8/1/2003", (DT_DBTIMESTAMP)"8/8/2003")', "7"),
    ('DATEDIFF("dd", (DT_DBTIMESTAMP)"2003-08-08", (DT_DBTIMESTAMP)"2003-08-01")', "-7"),
    ('DATEDIFF("yy", (DT_DBDATE)"2003-12-31", (DT_DBDATE)"2004-01-01")', "1"),
    ('DATEDIFF("q", (DT_DBDATE)"2003-03-31", (DT_DBDATE)"2003-04-01")', "1"),
    ('DATEDIFF("mm", (DT_DBDATE)"2003-08-31", (DT_DBDATE)"2004-02-01")', "6"),
    ('DATEDIFF("ww", (DT_DBDATE)"2003-08-02", (DT_DBDATE)"2003-08-03")', "1"),  # Saturday to Sunday
    ('DATEDIFF("Week", (DT_DBDATE)"2003-08-03", (DT_DBDATE)"2003-08-09")', "0"),
    ('DATEDIFF("Hour", (DT_DBTIMESTAMP)"2003-08-01 09:59:59", (DT_DBTIMESTAMP)"2003-08-01 10:00:00")', "1"),
    ('DATEDIFF("n", (DT_DBTIMESTAMP)"2003-08-01 10:00:59", (DT_DBTIMESTAMP)"2003-08-01 10:01:00")', "1"),
    ('DATEDIFF("ss", @[User::Due], (DT_DBTIMESTAMP)"2005-03-04 11:06:27")', "9"),
    ('DATEDIFF("ms", (DT_DBTIMESTAMP)"2003-08-01 10:00:00", (DT_DBTIMESTAMP)"2003-08-01 10:00:01.5")', "1500"),
    ('DATEDIFF("ms", (DT_DBDATE)"1900-01-01", (DT_DBDATE)"2003-08-01")', None),
    ('DATEDIFF("dd", 1, GETDATE())', None),
    ('DATEPART("month", (DT_DBTIMESTAMP)"11/04/2002")', "11"),
    ('DATEPART("weekday", (DT_DBDATE)"2026-11-23")', "2"),  # a Monday
    ('DATEPART("dw", (DT_DBDATE)"2026-11-22")', "1"),
    ('DATEPART("dy", (DT_DBDATE)"2004-12-31")', "366"),
    ('DATEPART("wk", (DT_DBDATE)"2026-01-03")', "1"),
    ('DATEPART("wk", (DT_DBDATE)"2026-01-04")', "2"),
    ('DATEPART("qq", (DT_DBDATE)"2026-11-25")', "4"),
    ('DATEPART("hh", @[User::Due])', "11"),
    ('DATEPART("mi", @[User::Due])', "6"),
    ('DATEPART("s", @[User::Due])', "18"),
    ('DATEPART("ms", (DT_DBTIMESTAMP)"2026-01-01 10:00:00.123")', "123"),
    ('DATEPART("yy", "2002-11-04")', "2002"),
    ('DAY((DT_DBTIMESTAMP)"6/1/2003")', "1"),
    ('MONTH((DT_DBTIMESTAMP)"11/04/2002")', "11"),
    ('YEAR((DT_DBTIMESTAMP)"2002-11-04")', "2002"),
    ("DAY(5)", None),
    ('YEAR((DT_DBTIME)"10:00:00")', None),
    ("(DT_WSTR,30)GETDATE()", "2026-11-25 10:57:48.123000000"),
    ("SUBSTRING((DT_WSTR,30)GETDATE(),1,10)", "2026-11-25"),
    ("(DT_STR,30,1252)(DT_DBDATE)GETDATE()", "2026-11-25"),
    ('RIGHT("0" + (DT_WSTR,2)DAY(GETDATE()),2) + (DT_WSTR,4)YEAR(GETDATE())', "252026"),
]
CASTS = [  # "Cast (SSIS Expression)", "Integration Services Data Types", "Data Truncation (SSIS)"
    ("(DT_I4) 3.57", "3"),
    ("(DT_I4) -3.57", "-3"),
    ('(DT_I4)" 42 "', "42"),
    ('(DT_I4)"4x"', None),
    ('(DT_I4)"3.57"', None),
    ("(DT_I4)TRUE", "-1"),
    ("(DT_I2)40000", None),
    ("(DT_UI1)256", None),
    ("(DT_UI4)(-1)", None),
    ("(DT_I8)3000000000L", "3000000000"),
    ("(DT_STR,1,1252)5", "5"),
    ('(DT_WSTR,3)"Cat"', "Cat"),
    ('(DT_WSTR,2)"Cat"', "Ca"),
    ('(DT_STR,0,1252)"Cat"', ""),
    ("(DT_DECIMAl,2)500", "500.00"),
    ("(DT_NUMERIC,7,3)4000", "4000.000"),
    ("(DT_NUMERIC,5,2)1.005", "1.01"),
    ("(DT_NUMERIC,3,2)10", None),
    ("(DT_CY)1.5", "1.5000"),
    ('(DT_BOOL)"True"', "True"),
    ('(DT_BOOL)"false"', "False"),
    ("(DT_BOOL)0", "False"),
    ("(DT_BOOL)5", "True"),
    ('(DT_BOOL)"maybe"', None),
    ("(DT_WSTR,5)TRUE", "True"),
    ("(DT_WSTR,5)FALSE", "False"),
    ('(DT_DBDATE) "1999-10-11"', "1999-10-11"),
    ('(DT_DBDATE)"1999-10-11 16:34:52"', "1999-10-11"),
    ('(DT_DBDATE)"1999-02-30"', None),
    ('(DT_DBDATE)"hello"', None),
    ("(DT_DBDATE)5", None),
    ('(DT_DBTIME)"16:34:52.9"', "16:34:52"),
    ('(DT_DBTIME2, 5) "16:34:52.12345"', "16:34:52.12345"),
    ('(DT_DBTIME2,0)"16:34:52.9"', "16:34:52"),
    ('(DT_DBTIME)"4:05 PM"', "16:05:00"),
    ('(DT_DBTIME)"13:05 PM"', None),
    ('(DT_DBTIMESTAMP2, 4) "1999-10-11 16:34:52.1234"', "1999-10-11 16:34:52.1234"),
    ('(DT_DBTIMESTAMPOFFSET, 3) "1999-10-11 16:34:52.1234567 + 5:35"', "1999-10-11 16:34:52.123 +05:35"),
    ('(DT_DBTIMESTAMPOFFSET,0)"1999-10-11 20:34:52 -3:30"', "1999-10-11 20:34:52 -03:30"),
    ('(DT_DBTIMESTAMPOFFSET,0)(DT_DBDATE)"1999-10-11"', "1999-10-11 00:00:00 +00:00"),
    ('(DT_FILETIME)"1999-10-11 16:34:52.123"', "1999-10-11 16:34:52:123"),
    ('(DT_DATE)"8/6/2003"', "8/6/2003"),
    ('(DT_DATE)"2003-08-06 14:05:00"', "8/6/2003 2:05:00 PM"),
    ('(DT_DATE)"6. 8. 2003 14:05:00"', "8/6/2003 2:05:00 PM"),
    ('(DT_DATE)"6.8.29"', "8/6/2029"),
    ('(DT_DATE)"8/6/30"', "8/6/1930"),
    ("(DT_WSTR, 30) @[System::StartTime]", "3/4/2005 11:06:18 AM"),
    ("(DT_WSTR,30)@[User::Midnight]", "3/4/2005"),
    ("(DT_WSTR,30)(DT_DBTIMESTAMP)@[User::Due]", "2005-03-04 11:06:18"),
    ('(DT_R8)"1.5e3"', "1500"),
    ("(DT_R4)0.1", "0.1"),
    ("(DT_R4)1E300", None),
    ('(DT_R8)"x"', None),
    ('(DT_GUID)"{0f0e0d0c-0000-0000-0000-0000000000ff}"', "{0F0E0D0C-0000-0000-0000-0000000000FF}"),
    ('(DT_GUID)"x"', None),
    ("(dt_wstr,9)7058", "7058"),
]
COMPARISONS = [  # "== (Equal)" and related operators
    ('"a" == "a"', "True"),
    ('"a" == "A"', "False"),
    ('"a" != "A"', "True"),
    ('"a" < "b"', "True"),
    ("1 == 1.0", "True"),
    ("1 == 1E0", "True"),
    ("2 >= 3", "False"),
    ("4294967295U > -1", "True"),
    ('1 == "1"', None),
    ("TRUE == 1", None),
    ("TRUE == TRUE", "True"),
    ("TRUE > FALSE", None),
    ('(DT_DBTIMESTAMPOFFSET,3) "1999-10-11 20:34:52.123 -3:30" != (DT_DBDATE)"1999-10-12"', "True"),
    ('(DT_DBDATE)"2003-07-04" == (DT_DBTIMESTAMP)"2003-07-04 00:00:00"', "True"),
    ('"7/4/2003" == (DT_DBDATE)"2003-07-04"', "True"),
    ('(DT_DBTIME)"10:00:00" < (DT_DBTIME)"11:00:00"', "True"),
    ('(DT_DBTIME)"10:00:00" == (DT_DBDATE)"2003-07-04"', None),
    ("GETDATE() > @[User::Due]", "True"),
    ("@[User::Times] > @[Custom::Count]", "True"),
]
NULLS = [  # "&& (Logical AND)", "|| (Logical OR)", "? : (Conditional)", NULL, ISNULL, REPLACENULL
    ("NULL(DT_I4)", ""),
    ("ISNULL(NULL(DT_STR,10,1252))", "True"),
    ('ISNULL("")', "False"),
    ("ISNULL(NULL(DT_I4) + 1)", "True"),
    ('ISNULL("a" + NULL(DT_WSTR,1))', "True"),
    ("ISNULL(NULL(DT_I4) == NULL(DT_I4))", "True"),
    ("ISNULL(LEN(NULL(DT_WSTR,5)))", "True"),
    ("ISNULL(!NULL(DT_BOOL))", "True"),
    ("ISNULL(-NULL(DT_I4))", "True"),
    ("ISNULL((DT_WSTR,5)NULL(DT_DATE))", "True"),
    ("ISNULL(NULL(DT_BOOL) && NULL(DT_BOOL))", "True"),
    ("ISNULL(NULL(DT_BOOL) && TRUE)", "True"),
    ("NULL(DT_BOOL) && FALSE", "False"),
    ("FALSE && NULL(DT_BOOL)", "False"),
    ("NULL(DT_BOOL) || TRUE", "True"),
    ("ISNULL(NULL(DT_BOOL) || FALSE)", "True"),
    ("FALSE && 1 / 0 == 1", "False"),
    ("TRUE || 1 / 0 == 1", "True"),
    ("1 && TRUE", None),
    ("ISNULL(NULL(DT_BOOL) ? 1 : 2)", "True"),
    ("TRUE ? 1 : NULL(DT_I4)", "1"),
    ("1 ? 2 : 3", None),
    ('REPLACENULL(NULL(DT_WSTR,10), "1900-01-01")', "1900-01-01"),
    ('REPLACENULL(NULL(DT_I4), "5") + 1', "6"),
    ('REPLACENULL(NULL(DT_I4), "x")', None),
    ('REPLACENULL("a", "b")', "a"),
    ('ISNULL(@[User::Nothing]) ? "none" : @[User::Nothing]', "none"),
    ('!(ISNULL(@Due)) && !(ISNULL(@Midnight)) ? (DT_WSTR,2)DATEDIFF("mm",@Due,@Midnight) : "Unknown"', "0"),
]
NAMES = [  # "Identifiers (SSIS)"
    ("@[User::Name]", "Touring Front Wheel"),
    ("@Name", "Touring Front Wheel"),
    ("@[Name]", "Touring Front Wheel"),
    ("@name", "lower"),
    ("@NAME", None),
    ("@[System::Name]", None),
    ("@PackageName", "EmailRowCountPP"),
    ("@[$Project::Server]", "relay.corp.example"),
    ("@[$Package::Limit] + 1", "4"),
    ("@Count", None),
    ("@[User::Rate] * 2", "5"),
    ("!@[User::Yes]", "False"),
]
MAIL = [  # "Use Property Expressions in Packages": the examples for a Send Mail task
    (
        (
            '"PExpression-->Package: (" + @[System::PackageName] + ") Started:"+  (DT_WSTR, 30) @[System::StartTime] + '
            '" Duration:"  +  (DT_WSTR,10) (DATEDIFF( "ss", @[System::StartTime] , '
            '(DT_DBTIMESTAMP)"2005-03-04 11:06:27"  )) + " seconds"'
        ),
        "PExpression-->Package: (EmailRowCountPP) Started:3/4/2005 11:06:18 AM Duration:9 seconds",
    ),
    ('"Rows Processed: "  +   "\\n" +"   NASDAQ: "  +   (dt_wstr,9)@[Times]', "Rows Processed: \n   NASDAQ: 5"),
    ("DAY((DT_DBTIMESTAMP)GETDATE())==1||DAY((DT_DBTIMESTAMP)GETDATE())==15?1:2", "2"),
    ('DATEPART("weekday", GETDATE()) ==2?"notepad.exe":"mspaint.exe"', "mspaint.exe"),
]
CASES = [
    *LITERALS,
    *PRECEDENCE,
    *ARITHMETIC,
    *TEXTS,
    *MATHEMATICS,
    *DATES,
    *CASTS,
    *COMPARISONS,
    *NULLS,
    *NAMES,
    *MAIL,
]


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dates, "now", lambda **_: dt.datetime.fromisoformat("2026-11-25 10:57:48.123"))


@pytest.mark.parametrize(("text", "expected"), [case for case in CASES if case[1] is None])
def test_what_ssis_refuses_is_an_error_with_a_remedy(text: str, expected: None) -> None:
    """The place is shown where the text is known."""
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, VARIABLES)
    assert caught.value.remedy
    assert str(caught.value).endswith("^")


@pytest.mark.parametrize(("text", "expected"), [case for case in CASES if case[1] is not None])
def test_an_expression_gives_what_its_page_says(text: str, expected: str) -> None:
    """As the text that a property is set to."""
    assert str(evaluate(text, VARIABLES)) == expected


@pytest.mark.parametrize(
    ("text", "type_"),
    [  # "Mapping Numeric Literals to Integration Services Data Types", "Implicit Data Conversion"
        ("1", "DT_I4"),
        ("1U", "DT_UI4"),
        ("1L", "DT_I8"),
        ("1UL", "DT_UI8"),
        ("1.5", "DT_NUMERIC,2,1"),
        ("1E0", "DT_R8"),
        ("1E0F", "DT_R4"),
        ("1.5F", "DT_R4"),
        ("1.5L", "DT_R8"),
        ("1 + 1L", "DT_I8"),
        ("1U + 1", "DT_I8"),
        ("(DT_UI2)1 + (DT_I2)1", "DT_I4"),
        ("(DT_I2)1 + (DT_I2)1", "DT_I2"),
        ("1 + 1E0", "DT_R8"),
        ('"a"', "DT_WSTR"),
        ("1 == 1", "DT_BOOL"),
        ('LEN("a")', "DT_I4"),
        ('CODEPOINT("a")', "DT_UI2"),
        ("SQRT(4)", "DT_R8"),
        ("GETDATE()", "DT_DBTIMESTAMP"),
        ("@[User::Due]", "DT_DATE"),
        ("ISNULL(1)", "DT_BOOL"),
    ],
)
def test_a_result_has_the_type_that_ssis_gives_it(text: str, type_: str) -> None:
    """With its parameters."""
    assert str(evaluate(text, VARIABLES).type) == type_


def test_a_variable_may_bring_its_own_type() -> None:
    """Where Python's types are too few."""
    small = Value(TypeSpec(DataType.UI1), 255)
    with pytest.raises(ExpressionError, match="overflows DT_UI1"):
        evaluate("@X + @X", {"X": small})


def test_what_no_type_of_ssis_holds_is_refused() -> None:
    """A list in a parameter, say."""
    with pytest.raises(ExpressionError, match="no type for list"):
        evaluate("@X", {"X": [1]})


def test_exact_numbers_stay_exact() -> None:
    """No float in between."""
    assert evaluate("0.1 + 0.2").data == Decimal("0.3")


def test_a_moment_with_a_zone_is_read_in_local_time() -> None:
    """Airflow's dates all have one."""
    moment = dt.datetime(2026, 11, 25, 10, tzinfo=dt.UTC)
    assert evaluate("@X", {"X": moment}).data == moment.astimezone().replace(tzinfo=None)


def test_the_time_of_the_clock_is_local_and_has_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """GETDATE is SSIS's local time; GETUTCDATE is not."""
    monkeypatch.undo()
    before = dt.datetime.now(tz=dt.UTC)
    local, utc = evaluate("GETDATE()").data, evaluate("GETUTCDATE()").data
    assert isinstance(local, dt.datetime) and isinstance(utc, dt.datetime)
    assert local.microsecond % 1000 == 0
    assert dt.timedelta(milliseconds=-1) <= utc.replace(tzinfo=dt.UTC) - before < dt.timedelta(minutes=5)
    assert abs(local.astimezone() - before) < dt.timedelta(minutes=5)
