"""The list of public data sets: addresses, licences, and the hash of every file's content.

Sizes and hashes are of the uncompressed content, which for a set with an address is the official
file byte for byte. `name` is how the file is stored, and may be compressed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataFile:
    """One file: its stored name, and the size and hash of what is in it."""

    name: str
    bytes: int
    sha256: str
    url: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One data set; `folder` is relative to RECURRA_DATA or the cache."""

    name: str
    about: str
    folder: str
    files: tuple[DataFile, ...]
    licence: str
    citation: str
    page: str

    @property
    def bytes(self) -> int:
        """Size of the uncompressed files together."""
        return sum(file.bytes for file in self.files)

    @property
    def downloadable(self) -> bool:
        """Whether every file has an official address."""
        return all(file.url is not None for file in self.files)


_GITHUB = "https://raw.githubusercontent.com"
_M4 = f"{_GITHUB}/Mcompetitions/M4-methods/master/Dataset"
_ETT = f"{_GITHUB}/zhouhaoyi/ETDataset/main/ETT-small"
_VEGA = f"{_GITHUB}/vega/vega-datasets/main/data"
_MULTI30K = f"{_GITHUB}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
_M4_PAPER = (
    "Makridakis, Spiliotis, Assimakopoulos (2020), The M4 Competition, Int. J. Forecasting 36(1)"
)

_ENTRIES = (
    Dataset(
        name="weather-seattle",
        about="Seattle, daily: precipitation, maximum and minimum temperature, wind, 2012-2015",
        folder="forecasting/weather",
        files=(
            DataFile(
                "seattle-weather.csv",
                48219,
                "0845078a290b48e3149ab8639966824110a251db4e06fc144c06ebb534af23be",
                f"{_VEGA}/seattle-weather.csv",
            ),
        ),
        licence="public domain (NOAA)",
        citation="NOAA GHCN, through vega-datasets",
        page="https://github.com/vega/vega-datasets",
    ),
    Dataset(
        name="weather-beijing",
        about="Beijing, hourly: PM2.5 and weather, 2010-2014, with missing values",
        folder="forecasting/weather",
        files=(
            DataFile(
                "beijing_pm25_pollution.csv.xz",
                2010492,
                "892e9559205d16d32623135c127a3951c12e46ea1e0b3093e107ce89a9fd60e2",
            ),
        ),
        licence="CC BY 4.0",
        citation="Liang et al. (2015), Proc. R. Soc. A 471",
        page="https://archive.ics.uci.edu/dataset/381/beijing+pm2+5+data",
    ),
    Dataset(
        name="weather-jena",
        about="Jena, every 10 minutes: 21 variables, 2020, values only",
        folder="forecasting/weather",
        files=(
            DataFile(
                "jena_weather_2020_values.csv.xz",
                6181247,
                "bcc458869d056c968c9155dc9bb5bef435fdd353bfe4bcac25f00d14b8d807b8",
            ),
        ),
        licence="none stated",
        citation="Max Planck Institute for Biogeochemistry; Wu et al. (2021), Autoformer",
        page="https://www.bgc-jena.mpg.de/wetter/",
    ),
    Dataset(
        name="stocks",
        about="Monthly prices of five companies, 2000-2010",
        folder="forecasting/stocks",
        files=(
            DataFile(
                "stocks.csv",
                12245,
                "f9953ac6693e587476b4ebf2f0b00d9bb95371ca8c39da4cc6155077b3e417cd",
                f"{_VEGA}/stocks.csv",
            ),
        ),
        licence="none stated",
        citation="vega-datasets",
        page="https://github.com/vega/vega-datasets",
    ),
    Dataset(
        name="sp500",
        about="S&P 500, monthly 2000-2010 and daily 2000-2020",
        folder="forecasting/stocks",
        files=(
            DataFile(
                "sp500.csv",
                2305,
                "8d1a3310b741565fd2aaf7b9d34030c92b1fbedbc9ba839f4a50dab8b2dd5c3d",
                f"{_VEGA}/sp500.csv",
            ),
            DataFile(
                "sp500-2000.csv",
                415968,
                "9409e9342d0657c747324e4cfabce8a8c7f663bc485b95a3378f36b0a160f8c8",
                f"{_VEGA}/sp500-2000.csv",
            ),
        ),
        licence="none stated",
        citation="vega-datasets",
        page="https://github.com/vega/vega-datasets",
    ),
    Dataset(
        name="ett",
        about="Electricity transformer temperature: four tables of 7 variables, hourly or 15 min",
        folder="forecasting/ett",
        files=(
            DataFile(
                "ETTh1.csv.xz",
                2589657,
                "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
                f"{_ETT}/ETTh1.csv",
            ),
            DataFile(
                "ETTh2.csv.xz",
                2417960,
                "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
                f"{_ETT}/ETTh2.csv",
            ),
            DataFile(
                "ETTm1.csv.xz",
                10360719,
                "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e",
                f"{_ETT}/ETTm1.csv",
            ),
            DataFile(
                "ETTm2.csv.xz",
                9677236,
                "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd",
                f"{_ETT}/ETTm2.csv",
            ),
        ),
        licence="CC BY-ND 4.0",
        citation="Zhou et al. (2021), Informer, AAAI",
        page="https://github.com/zhouhaoyi/ETDataset",
    ),
    Dataset(
        name="m4-hourly",
        about="M4 competition: 414 hourly series, horizon 48",
        folder="forecasting/m4",
        files=(
            DataFile(
                "Hourly-train.csv.xz",
                2347115,
                "ea59b7783573c49077a835ab6465c7d66f1474783360f310988a9a737fbca62f",
                f"{_M4}/Train/Hourly-train.csv",
            ),
            DataFile(
                "Hourly-test.csv.xz",
                132820,
                "71a57fccb15e534d973626ada4fb87febf789e9317715b7cc6dd3b5f90db6f42",
                f"{_M4}/Test/Hourly-test.csv",
            ),
        ),
        licence="none stated",
        citation=_M4_PAPER,
        page="https://github.com/Mcompetitions/M4-methods",
    ),
    Dataset(
        name="m4-weekly",
        about="M4 competition: 359 weekly series, horizon 13",
        folder="forecasting/m4",
        files=(
            DataFile(
                "Weekly-train.csv.xz",
                4015067,
                "d478d3f6ed673e6ed3c2cb0fbed5425f72eedd51318ebebeb0b5ecfcefc37714",
                f"{_M4}/Train/Weekly-train.csv",
            ),
            DataFile(
                "Weekly-test.csv.xz",
                44247,
                "3b2bc4be8e636e802260dcd843ca3c5da40536a1fbe1ecb3229a97dae4f44688",
                f"{_M4}/Test/Weekly-test.csv",
            ),
        ),
        licence="none stated",
        citation=_M4_PAPER,
        page="https://github.com/Mcompetitions/M4-methods",
    ),
    Dataset(
        name="m4-submissions",
        about="M4 competition: the organisers' Naive2, sNaive and SES forecasts, hourly and weekly",
        folder="forecasting/m4",
        files=(
            DataFile(
                "submission-Naive2-hourly-weekly.csv.xz",
                304282,
                "b0f609db563bfe84e666362086b7e64f6abb538047b60b7310db40090ad7197e",
            ),
            DataFile(
                "submission-sNaive-hourly-weekly.csv.xz",
                164294,
                "46f9c56a3fecc457d4e692f2e5777c38343b11f8bf61fbf1c364efd2643fda66",
            ),
            DataFile(
                "submission-SES-hourly-weekly.csv.xz",
                333153,
                "1fcd80db56fdd62b75f199a9e56687823898b5625503d387731d813ca3062f42",
            ),
        ),
        licence="none stated",
        citation=_M4_PAPER,
        page="https://github.com/Mcompetitions/M4-methods",
    ),
    Dataset(
        name="m3",
        about="M3 competition: 3,003 yearly, quarterly, monthly and other series",
        folder="forecasting/m3",
        files=(
            DataFile(
                "M3-train.csv.xz",
                1330601,
                "18c2eb902debf2a31be1272488855f1f26ad2414a73e222270471d659a9cf1e3",
            ),
            DataFile(
                "M3-test.csv.xz",
                245031,
                "b231426d80d1d75937ff0990bbd00695242032f008606607c5deb4ad6fb11d65",
            ),
            DataFile(
                "M3-info.csv.xz",
                241162,
                "91bd223b1bf750d03c7b72735341b6ed5412478be1d3111aa07f313b7fbde398",
            ),
        ),
        licence="none stated",
        citation="Makridakis & Hibon (2000), The M3-Competition, Int. J. Forecasting 16(4)",
        page="https://forecasters.org/resources/time-series-data/m3-competition/",
    ),
    Dataset(
        name="exchange-rate",
        about="Daily rates of 8 currencies, 1990-2016, without header or dates",
        folder="forecasting/exchange_rate",
        files=(
            DataFile(
                "exchange_rate.txt.gz",
                546336,
                "0127465b51e3cd3c360f8eb2be30cfd294689a2a55903eb8245aafc396626c7f",
                f"{_GITHUB}/laiguokun/multivariate-time-series-data/master/exchange_rate/exchange_rate.txt.gz",
            ),
        ),
        licence="none stated",
        citation="Lai et al. (2018), LSTNet, SIGIR",
        page="https://github.com/laiguokun/multivariate-time-series-data",
    ),
    Dataset(
        name="illness",
        about="Weekly influenza-like illness in the US, 7 variables, 2002-2020",
        folder="forecasting/illness",
        files=(
            DataFile(
                "national_illness.csv",
                66653,
                "8594cecb98c6f2f9dc014eca11c4d5d1e38ad5ce6ed0592d4abe65b146fce395",
            ),
        ),
        licence="public domain (CDC)",
        citation="CDC FluView; Wu et al. (2021), Autoformer",
        page="https://gis.cdc.gov/grasp/fluview/fluportaldashboard.html",
    ),
    Dataset(
        name="electricity-pjm",
        about="Hourly load of 12 zones of the PJM grid, 1998-2018",
        folder="forecasting/electricity",
        files=(
            DataFile(
                "pjm_est_hourly.csv.xz",
                12705938,
                "6b389893eea83d2ffbc9ad32957629f983e8627418ca9033f7bacc9b95f89bfd",
            ),
        ),
        licence="CC0",
        citation="PJM Interconnection; R. Mulla, Hourly Energy Consumption",
        page="https://www.kaggle.com/datasets/robikscube/hourly-energy-consumption",
    ),
    Dataset(
        name="air-passengers",
        about="Monthly airline passengers, 1949-1960",
        folder="forecasting/classic",
        files=(
            DataFile(
                "AirPassengers.csv",
                1746,
                "5f8b316b84545d9cfb05612298df8415ce4c44421c7012d109465564b07ebc06",
                f"{_GITHUB}/unit8co/darts/master/datasets/AirPassengers.csv",
            ),
        ),
        licence="none stated",
        citation="Box & Jenkins (1976)",
        page="https://github.com/unit8co/darts",
    ),
    Dataset(
        name="sunspots",
        about="Monthly sunspots, 1749-1983",
        folder="forecasting/classic",
        files=(
            DataFile(
                "monthly-sunspots.csv",
                42219,
                "4b91dd8e13bdf6a95c3034c71ceca0152269986c6a91706c6eaf50c1d50081c8",
            ),
        ),
        licence="none stated",
        citation="SILSO",
        page="https://github.com/jbrownlee/Datasets",
    ),
    Dataset(
        name="temperature-melbourne",
        about="Daily minimum temperature in Melbourne, 1981-1990",
        folder="forecasting/classic",
        files=(
            DataFile(
                "daily-min-temperatures.csv",
                67921,
                "8b9de63ed6789492bf497625e7f9beb96a63d367b4b0a21754006f749fa5e5da",
                f"{_GITHUB}/jbrownlee/Datasets/master/daily-min-temperatures.csv",
            ),
        ),
        licence="none stated",
        citation="Australian Bureau of Meteorology",
        page="https://github.com/jbrownlee/Datasets",
    ),
    Dataset(
        name="ausbeer",
        about="Quarterly beer production in Australia, 211 quarters",
        folder="forecasting/classic",
        files=(
            DataFile(
                "ausbeer.csv",
                3176,
                "52e08974f8459ff2860d516ba6e507eb6e8fe967d4339368013c37d7a95e599b",
            ),
        ),
        licence="none stated",
        citation="Australian Bureau of Statistics, through the R package fpp",
        page="https://github.com/unit8co/darts",
    ),
    Dataset(
        name="taylor",
        about="Half-hourly electricity demand in England and Wales, 4,032 values",
        folder="forecasting/classic",
        files=(
            DataFile(
                "taylor.csv",
                24196,
                "0c9cbfcb414fc0897ea27773f1dabbb933184c09b90b750d2029631d4a451ed0",
            ),
        ),
        licence="none stated",
        citation="Taylor (2003), J. Operational Research Society 54",
        page="https://github.com/unit8co/darts",
    ),
    Dataset(
        name="tiny-shakespeare",
        about="Shakespeare, 1,115,394 characters in 40,000 lines",
        folder="language_modelling/tinyshakespeare",
        files=(
            DataFile(
                "input.txt",
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                f"{_GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            ),
        ),
        licence="public domain",
        citation="Karpathy (2015), The Unreasonable Effectiveness of Recurrent Neural Networks",
        page="https://github.com/karpathy/char-rnn",
    ),
    Dataset(
        name="ptb",
        about="Penn Treebank, words: 929,589, 73,760 and 82,430 tokens, vocabulary of 10,000",
        folder="language_modelling/ptb",
        files=(
            DataFile(
                "ptb.train.txt.xz",
                5101618,
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            DataFile(
                "ptb.valid.txt.xz",
                399782,
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
            DataFile(
                "ptb.test.txt.xz",
                449945,
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            ),
        ),
        licence="LDC user agreement (LDC99T42); not for redistribution",
        citation="Marcus et al. (1993); Mikolov et al. (2010), Interspeech",
        page="https://catalog.ldc.upenn.edu/LDC99T42",
    ),
    Dataset(
        name="ptb-char",
        about="Penn Treebank, characters: 5,017,482, 393,042 and 442,423 tokens, 50 symbols",
        folder="language_modelling/ptb_char",
        files=(
            DataFile(
                "ptb.char.train.txt.xz",
                10034964,
                "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9",
            ),
            DataFile(
                "ptb.char.valid.txt.xz",
                786084,
                "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8",
            ),
            DataFile(
                "ptb.char.test.txt.xz",
                884846,
                "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe",
            ),
        ),
        licence="LDC user agreement (LDC99T42); not for redistribution",
        citation="Mikolov et al. (2012)",
        page="https://catalog.ldc.upenn.edu/LDC99T42",
    ),
    Dataset(
        name="nab",
        about="Numenta Anomaly Benchmark 1.1: 58 labelled series, and its scoreboard",
        folder="anomaly/nab",
        files=(
            DataFile(
                "nab.tar.xz",
                9697280,
                "40674d4c8b828c50cf8729bd84f5968165dd7ea21d873b3d88f7ffc2b075023d",
            ),
            DataFile(
                "final_results.json",
                2403,
                "079a91e5c7d27337d7e242ed642f20c4901d40189c5f96d2f8e9a345edc15223",
            ),
        ),
        licence="MIT",
        citation="Lavin, Ahmad (2015), Evaluating Real-Time Anomaly Detection Algorithms, ICMLA",
        page="https://github.com/numenta/NAB",
    ),
    Dataset(
        name="smd-train",
        about="Server Machine Dataset: 38 metrics of 5 of its 28 machines, a minute a row",
        folder="anomaly/smd/train",
        files=(
            DataFile(
                "machine-1-3.txt.xz",
                8106084,
                "a4ef16a49d921e0ba9497ce2690d3833eb4a85f9a8a88392de4c3fde42e413ac",
            ),
            DataFile(
                "machine-1-6.txt.xz",
                8101296,
                "27e1765c04c2a5d08f39d98e7979e7764886fc733c36382fe081157a5ac0b9d8",
            ),
            DataFile(
                "machine-2-1.txt.xz",
                8103006,
                "d6eb13ff74a537cf33686319fffdd4cdcb394862570a3acd519b4c37af97cd2e",
            ),
            DataFile(
                "machine-2-2.txt.xz",
                8105058,
                "e2e0f52994c8c884f9552c6289e42268d9d988ba7c7abadcc0d8dcd8ba993c30",
            ),
            DataFile(
                "machine-3-2.txt.xz",
                8106084,
                "7cabed178422f7772425c6cabc3c20a1f7dedc3ab2a950f90a9edfcef3b5b3e3",
            ),
        ),
        licence="MIT",
        citation="Su et al. (2019), OmniAnomaly, KDD",
        page="https://github.com/NetManAIOps/OmniAnomaly/tree/master/ServerMachineDataset",
    ),
    Dataset(
        name="smd-test",
        about="Server Machine Dataset: the rows after those of smd-train",
        folder="anomaly/smd/test",
        files=(
            DataFile(
                "machine-1-3.txt.xz",
                8106426,
                "f3c134d45ffa7aed66587dba893111396c8c7ea3b6fa7f76895955b26b1a75ef",
            ),
            DataFile(
                "machine-1-6.txt.xz",
                8101638,
                "0797fe4bfd25ef13c830955cb9f2a36b4c9d5da265b8e91702408b6b048267f4",
            ),
            DataFile(
                "machine-2-1.txt.xz",
                8103348,
                "2d103661799271be958227907950a1c76803356442d60a4070671cc0abbefb20",
            ),
            DataFile(
                "machine-2-2.txt.xz",
                8105400,
                "1cb0dd0a4b8738b184c62bb07700e6800e029f7a76a715fe0ee147c603b2f2c8",
            ),
            DataFile(
                "machine-3-2.txt.xz",
                8106426,
                "5f83ded5fbfb9b682030bdd7dd82eb53a77f9caa3773ddcc7e38db73c25db46e",
            ),
        ),
        licence="MIT",
        citation="Su et al. (2019), OmniAnomaly, KDD",
        page="https://github.com/NetManAIOps/OmniAnomaly/tree/master/ServerMachineDataset",
    ),
    Dataset(
        name="smd-labels",
        about="Server Machine Dataset: which rows of smd-test are anomalies",
        folder="anomaly/smd/test_label",
        files=(
            DataFile(
                "machine-1-3.txt",
                47406,
                "755d57179625682172ae85f9483749cff576ff3282d0af294271a40ab6ea7b28",
            ),
            DataFile(
                "machine-1-6.txt",
                47378,
                "8359ffa67b5421b0b9967ccf396a58c7b3bf52fa24c3f95e6b9df6486f1d6365",
            ),
            DataFile(
                "machine-2-1.txt",
                47388,
                "416dd20a447f38b8d9394382293ed44f509c1c3f99c4aa2fbff179498626dbdc",
            ),
            DataFile(
                "machine-2-2.txt",
                47400,
                "b09e71b3aafe71d9ee73a4058b30efcf67dc80df98d3b7b7a8ec019ea3b769c4",
            ),
            DataFile(
                "machine-3-2.txt",
                47406,
                "1bbf4223cc6083f718f1d6022e2a48d48af44b08cdfa80048aa51af34d5111c3",
            ),
        ),
        licence="MIT",
        citation="Su et al. (2019), OmniAnomaly, KDD",
        page="https://github.com/NetManAIOps/OmniAnomaly/tree/master/ServerMachineDataset",
    ),
    Dataset(
        name="smap-msl",
        about="Telemetry of the SMAP satellite and the MSL rover: 81 labelled channels",
        folder="anomaly/smap_msl",
        files=(
            DataFile(
                "train.tar.xz",
                53524480,
                "ee4c65ca48694d5d1f8ee539235e12df92661b3af35d184a483bf9261ff9bc63",
            ),
            DataFile(
                "test.tar.xz",
                119982080,
                "50637948d7bf0fd8af5317db4de1d7cbdadb91a0726bd9d5fadda3455e7e2f70",
            ),
            DataFile(
                "labeled_anomalies.csv",
                3956,
                "057ce2d6c8875982bf4e5404aefea14efdcbce413d80826d2b737c95b59b7539",
            ),
        ),
        licence="Caltech/JPL, BSD style; the data are public",
        citation="Hundman et al. (2018), Detecting Spacecraft Anomalies Using LSTMs, KDD",
        page="https://github.com/khundman/telemanom",
    ),
    Dataset(
        name="ucr-anomaly",
        about="UCR anomaly archive: its four InternalBleeding series",
        folder="anomaly/ucr",
        files=(
            DataFile(
                "135_UCR_Anomaly_InternalBleeding16_1200_4187_4199.txt.xz",
                127517,
                "3f4be2dc36bdd730526b091b34fafdff269f1f940f2c3812ee1ab08ab20bec08",
            ),
            DataFile(
                "136_UCR_Anomaly_InternalBleeding17_1600_3198_3309.txt.xz",
                127500,
                "ceb7b2ce035266c005f375a5abc466089b9dc6c21aa13be0c1d4975cef9d155d",
            ),
            DataFile(
                "137_UCR_Anomaly_InternalBleeding18_2300_4485_4587.txt.xz",
                127500,
                "dd1a59193b818b4ce07a0d47486fd159eb25b7ced1fa317bd9024988cb207645",
            ),
            DataFile(
                "138_UCR_Anomaly_InternalBleeding19_3000_4187_4197.txt.xz",
                127500,
                "c324ae454f0bd69a878c191138a9cd1e36a0c17adf5a9d7059d505fc74cc23ee",
            ),
        ),
        licence="none stated (free for research)",
        citation="Wu, Keogh (2021), Current ... Anomaly Detection Benchmarks are Flawed, TKDE",
        page="https://www.cs.ucr.edu/~eamonn/time_series_data_2018/",
    ),
    Dataset(
        name="sst",
        about="Stanford Sentiment Treebank: 8,544, 1,101 and 2,210 sentences as labelled trees",
        folder="sentiment/sst_trees",
        files=(
            DataFile(
                "train.txt.xz",
                2160058,
                "e2f3f41b0b1e6d4dddc0effe3bfc2d27ed8928079aa9a03d652311614fc5feb7",
            ),
            DataFile(
                "dev.txt.xz",
                280825,
                "0e9336aed6e4730e19f58d00a77b3f0297efdb755f7b5e598c98a05e3f97ea40",
            ),
            DataFile(
                "test.txt.xz",
                559614,
                "6e54806dee95cf80cd918e7dfb3f6770f6df24bf826f289a4d1f709e1c8f6761",
            ),
        ),
        licence="none stated (research use)",
        citation="Socher et al. (2013), EMNLP",
        page="https://nlp.stanford.edu/sentiment/",
    ),
    Dataset(
        name="imdb",
        about="Movie reviews: 25,000 to learn from and 25,000 to be scored, half of them positive",
        folder="sentiment/imdb",
        files=(
            DataFile(
                "train.csv.xz",
                33554689,
                "a9bdf1f8c2240da0cb01b613aa443afc49baeeb306004f65bdb04383ed974cc6",
            ),
            DataFile(
                "test.csv.xz",
                32772936,
                "214a56b7870f6530c2c22d414a0798b8e65f6db7d653b8ec307b756658c0da75",
            ),
        ),
        licence="none stated (research use)",
        citation="Maas et al. (2011), ACL",
        page="https://ai.stanford.edu/~amaas/data/sentiment/",
    ),
    Dataset(
        name="mr",
        about="Movie review snippets: 5,331 positive and 5,331 negative",
        folder="sentiment/mr",
        files=(
            DataFile(
                "rt-polarity.neg.xz",
                612256,
                "4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca",
            ),
            DataFile(
                "rt-polarity.pos.xz",
                626139,
                "2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0",
            ),
        ),
        licence="none stated (research use)",
        citation="Pang, Lee (2005), ACL",
        page="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    ),
    Dataset(
        name="subj",
        about="Sentences about movies: 5,000 objective and 5,000 subjective",
        folder="sentiment/subj",
        files=(
            DataFile(
                "subj.objective.xz",
                669456,
                "5ddc9b44dc60d64d651347fcd7bdd489b0c70661e3f768215c16eea36f51204a",
            ),
            DataFile(
                "subj.subjective.xz",
                630790,
                "73a2dcf8dc3cbcc7f068a70ef9f021c86b2a8e4dac81566b7fd015b3e938f2c5",
            ),
        ),
        licence="none stated (research use)",
        citation="Pang, Lee (2004), ACL",
        page="https://www.cs.cornell.edu/people/pabo/movie-review-data/",
    ),
    Dataset(
        name="trec",
        about="Questions with 6 classes: 5,452 to learn from and 500 to be scored",
        folder="sentiment/trec",
        files=(
            DataFile(
                "TREC.train",
                335858,
                "9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3",
            ),
            DataFile(
                "TREC.test",
                23354,
                "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e",
            ),
        ),
        licence="none stated (research use)",
        citation="Li, Roth (2002), COLING",
        page="https://cogcomp.seas.upenn.edu/Data/QA/QC/",
    ),
    Dataset(
        name="an4",
        about="CMU AN4: 948 and 130 recordings of spelled names, numbers and addresses, 16 kHz",
        folder="speech/an4",
        files=(
            DataFile(
                "an4-train.tsv",
                57261,
                "2a8759208bd261c35ccbf2bc4a70eeb9a8d13534ceae6a8ecc81466eb8dd7473",
            ),
            DataFile(
                "an4-train.tar",
                38184960,
                "3faa743b83d72069f9b042308efcba4364018b2436d88277aad2e6b621cacb7e",
            ),
            DataFile(
                "an4-test.tsv",
                8018,
                "f89a12ac027d897375018757d10ce451b3ed9002c0c2a177e8602f31e2dc2601",
            ),
            DataFile(
                "an4-test.tar",
                5304320,
                "23b84d731cb1bbc147213a2e5c32427d074ef342aa6ab1eab43c0bca392f29c4",
            ),
        ),
        licence="BSD style (CMU)",
        citation="Acero (1993), Acoustical and Environmental Robustness in Speech Recognition",
        page="https://github.com/cmusphinx/an4",
    ),
    Dataset(
        name="multi30k",
        about="Captions of photographs in English, German and French: 29,000 to learn from",
        folder="translation/multi30k",
        files=(
            DataFile(
                "test_2016_flickr.de.gz",
                70649,
                "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
                f"{_MULTI30K}/test_2016_flickr.de.gz",
            ),
            DataFile(
                "test_2016_flickr.en.gz",
                62076,
                "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
                f"{_MULTI30K}/test_2016_flickr.en.gz",
            ),
            DataFile(
                "test_2016_flickr.fr.gz",
                72261,
                "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
                f"{_MULTI30K}/test_2016_flickr.fr.gz",
            ),
            DataFile(
                "test_2017_flickr.de.gz",
                64059,
                "c3078bc3b36808bf9d20eb2347ed6137016179ef59ec0d2b9b8ecc3fb2880081",
                f"{_MULTI30K}/test_2017_flickr.de.gz",
            ),
            DataFile(
                "test_2017_flickr.en.gz",
                55242,
                "ce1450ddc5ab0834502579d77a170849952e15a2938b34cc503bdc25ebb4fb98",
                f"{_MULTI30K}/test_2017_flickr.en.gz",
            ),
            DataFile(
                "test_2017_flickr.fr.gz",
                65691,
                "6f3764e31dac41e9455e612958bcfd4e877c5e15cd66df2c2b2be6d9bd83e5b6",
                f"{_MULTI30K}/test_2017_flickr.fr.gz",
            ),
            DataFile(
                "train.de.gz",
                2110398,
                "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
                f"{_MULTI30K}/train.de.gz",
            ),
            DataFile(
                "train.en.gz",
                1801238,
                "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
                f"{_MULTI30K}/train.en.gz",
            ),
            DataFile(
                "train.fr.gz",
                2111303,
                "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
                f"{_MULTI30K}/train.fr.gz",
            ),
            DataFile(
                "val.de.gz",
                75981,
                "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
                f"{_MULTI30K}/val.de.gz",
            ),
            DataFile(
                "val.en.gz",
                63297,
                "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
                f"{_MULTI30K}/val.en.gz",
            ),
            DataFile(
                "val.fr.gz",
                73924,
                "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
                f"{_MULTI30K}/val.fr.gz",
            ),
        ),
        licence="none stated; captions of Flickr30k, for research",
        citation="Elliott et al. (2016), Multi30K; Elliott et al. (2017), WMT",
        page="https://github.com/multi30k/dataset",
    ),
    Dataset(
        name="enja",
        about="Short sentences in English and Japanese, split into words: 50,000 to learn from",
        folder="translation/small_parallel_enja",
        files=(
            DataFile(
                "dev.en.xz",
                17054,
                "04a2673449770657fd5e3b963cb856be3130923212b6db8ac7eaeef18f06c041",
            ),
            DataFile(
                "dev.ja.xz",
                27781,
                "cd534f56b8639dc130f86a365e5ec0aa70042000bdd740a622fbbf8b6be4acca",
            ),
            DataFile(
                "test.en.xz",
                17301,
                "45edb380749ec2b49cca7618fc5a7595fc9f791180672ba466b90c873a4aa8bf",
            ),
            DataFile(
                "test.ja.xz",
                27793,
                "d37dc460a81b064e4106c8913eb11fa300da05cf3f58a7a5bbfec7e20947ddef",
            ),
            DataFile(
                "train.en.xz",
                1701356,
                "148b05dcd28638fe20ee84f2b1127001c80982be352007dda241fb759adadc76",
            ),
            DataFile(
                "train.ja.xz",
                2784447,
                "fc81a1434349ec98a449d7ae9cd2530057f689637684ecfed3501ea6a8a07ecc",
            ),
        ),
        licence="CC BY 2.0 FR (Tanaka corpus, Tatoeba)",
        citation="Tanaka (2001), Compilation of a multilingual parallel corpus",
        page="https://github.com/odashi/small_parallel_enja",
    ),
    Dataset(
        name="fsdd",
        about="Free Spoken Digit Dataset: 2,700 and 300 recordings of digits by 6 people, 8 kHz",
        folder="speech/fsdd",
        files=(
            DataFile(
                "fsdd-train.tsv",
                124550,
                "4f4384bbc15b74142ea62c6e79506a0d75add771d43b4d8f08d646069fdae082",
            ),
            DataFile(
                "fsdd-train.tar",
                12615680,
                "6033b6cc5ebf46fd918b8dddbc6e8726a316aab9db81e88dcfe696e41c5093b7",
            ),
            DataFile(
                "fsdd-test.tsv",
                13345,
                "52e1ff953b80930f25484c2a798819a706668604fc296c04b875e53c26e94569",
            ),
            DataFile(
                "fsdd-test.tar",
                1382400,
                "e47099dd71f8d829ab8b9b5522f56e4f8ac27b4d6765bdd7a4bc7ef41a3aa044",
            ),
        ),
        licence="CC BY-SA 4.0",
        citation="Jackson et al., Free Spoken Digit Dataset, DOI 10.5281/zenodo.1342401",
        page="https://github.com/Jakobovski/free-spoken-digit-dataset",
    ),
)

DATASETS: dict[str, Dataset] = {entry.name: entry for entry in _ENTRIES}
