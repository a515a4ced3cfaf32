"""The kinds of film and sound in the zoo: what FFmpeg's encoders can make, in the files that people have."""

from support.zoo import Film, Tone

_X264 = {"preset": "ultrafast"}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1:open-gop=1:bframes=3"}
_VP = {"deadline": "realtime", "cpu-used": "8"}
_AV1 = {"preset": "10"}
_FREE = {"strict": "experimental"}
#: Without it the older codecs blur the grey of a frame into that of the next.
_RICH = {"bit_rate": 2_000_000}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}

FILMS: dict[str, Film] = {
    "mp4 h264 aac": Film("mp4", "libx264", gop=8, options=_X264, sound="aac"),
    "mp4 h264 with B-frames": Film("mp4", "libx264", gop=8, options={"bf": "3", "x264-params": "open-gop=1"}),
    "mp4 h264 index first": Film("mp4", "libx264", gop=8, sound="aac", muxing={"movflags": "faststart"}),
    "mp4 h264 in fragments": Film("mp4", "libx264", gop=8, sound="aac", muxing=_FRAGMENTS),
    "mp4 hevc": Film("mp4", "libx265", gop=8, options=_X265),
    "mp4 mpeg4 mp3": Film("mp4", "mpeg4", gop=8, sound="libmp3lame", settings=_RICH),
    "mp4 av1": Film("mp4", "libsvtav1", gop=8, options=_AV1),
    "mp4 mjpeg": Film("mp4", "mjpeg", pixels="yuvj420p"),
    "3gp h264 aac": Film("3gp", "libx264", gop=8, sound="aac"),
    "3gp h263 amr": Film(
        *("3gp", "h263"),
        gop=8,
        size=(128, 96),
        sound="libopencore_amrnb",
        sound_rate=8000,
        sound_layout="mono",
    ),
    "mov prores pcm": Film("mov", "prores_ks", pixels="yuv422p10le", sound="pcm_s16le"),
    "mov prores with alpha": Film("mov", "prores_ks", pixels="yuva444p10le"),
    "mov animation": Film("mov", "qtrle", pixels="argb"),
    "mov png": Film("mov", "png", pixels="rgba"),
    "mov jpeg 2000": Film("mov", "jpeg2000", pixels="rgb24"),
    "mov dnxhd": Film("mov", "dnxhd", pixels="yuv422p", size=(256, 128), options={"profile": "dnxhr_sq"}),
    "mov cineform": Film("mov", "cfhd", pixels="yuv422p10le"),
    "mov cinepak": Film("mov", "cinepak", pixels="rgb24"),
    "mov sorenson": Film("mov", "svq1", pixels="yuv410p"),
    "mov uncompressed 10 bit": Film("mov", "v210", pixels="yuv422p10le", size=(96, 48)),
    "mkv h264 10 bit ac3": Film("matroska", "libx264", pixels="yuv420p10le", gop=8, sound="ac3"),
    "mkv h264 444 flac": Film("matroska", "libx264", pixels="yuv444p", gop=8, sound="flac"),
    "mkv h264 grey": Film("matroska", "libx264", pixels="gray", gop=8, settings={"color_range": 2}),
    "mkv h264 odd size": Film("matroska", "libx264", pixels="yuv444p", size=(67, 49)),
    "mkv hevc opus": Film("matroska", "libx265", gop=8, options=_X265, sound="libopus"),
    "mkv ffv1 pcm": Film("matroska", "ffv1", sound="pcm_s24le"),
    "mkv snow": Film("matroska", "snow", settings=_RICH),
    "mkv mpeg2 mp2": Film("matroska", "mpeg2video", gop=8, options={"bf": "2"}, settings=_RICH, sound="mp2"),
    "mkv mpeg2 interlaced": Film(
        "matroska", "mpeg2video", gop=8, options={"flags": "+ilme+ildct"}, settings=_RICH
    ),
    "mkv uncompressed": Film("matroska", "rawvideo"),
    "webm vp8 vorbis": Film("webm", "libvpx", gop=8, options=_VP, sound="vorbis", sound_options=_FREE),
    "webm vp8 hidden frames": Film(
        "webm", "libvpx", gop=8, options={"auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "good"}
    ),
    "webm vp9 opus": Film("webm", "libvpx-vp9", gop=8, options=_VP, sound="libopus"),
    "webm vp9 with alpha": Film("webm", "libvpx-vp9", pixels="yuva420p", gop=8, options=_VP),
    "webm av1": Film("webm", "libsvtav1", gop=8, options=_AV1),
    "webm without length": Film("webm", "libvpx", gop=8, options=_VP, sound="libopus", muxing={"live": "1"}),
    "ogv vp8 vorbis": Film("ogg", "libvpx", gop=8, options=_VP, sound="vorbis", sound_options=_FREE),
    "avi mpeg4 mp3": Film("avi", "mpeg4", gop=8, options={"bf": "2"}, settings=_RICH, sound="libmp3lame"),
    "avi h264 with B-frames": Film("avi", "libx264", gop=8, options={"bf": "2"}),
    "avi ms-mpeg4 pcm": Film("avi", "msmpeg4", gop=8, settings=_RICH, sound="pcm_s16le"),
    "avi h263": Film("avi", "h263p", gop=8, size=(128, 96), settings=_RICH),
    "avi vp8": Film("avi", "libvpx", gop=8, options=_VP),
    "avi mjpeg": Film("avi", "mjpeg", pixels="yuvj422p"),
    "avi huffyuv": Film("avi", "huffyuv", pixels="yuv422p"),
    "avi ffvhuff": Film("avi", "ffvhuff"),
    "avi utvideo": Film("avi", "utvideo"),
    "avi magicyuv": Film("avi", "magicyuv"),
    "avi cinepak": Film("avi", "cinepak", pixels="rgb24"),
    "avi screen capture": Film("avi", "zmbv", pixels="bgr0"),
    "avi asus": Film("avi", "asv1", settings=_RICH),
    "avi dv": Film("avi", "dvvideo", size=(720, 576)),
    "avi uncompressed": Film("avi", "rawvideo", pixels="bgr24"),
    "flv sorenson mp3": Film("flv", "flv", gop=8, settings=_RICH, sound="libmp3lame", sound_rate=44_100),
    "flv h264 aac": Film("flv", "libx264", gop=8, sound="aac"),
    "flv screen video": Film("flv", "flashsv", pixels="bgr24"),
    "ts h264 aac": Film("mpegts", "libx264", gop=8, sound="aac"),
    "ts hevc": Film("mpegts", "libx265", gop=8, options=_X265),
    "ts mpeg2 mp2": Film("mpegts", "mpeg2video", gop=8, settings=_RICH, sound="mp2"),
    "mpg mpeg1 mp2": Film(
        "mpeg", "mpeg1video", gop=8, options={"strict": "unofficial"}, settings=_RICH, sound="mp2"
    ),
    "vob mpeg2 ac3": Film("vob", "mpeg2video", gop=8, options={"bf": "2"}, settings=_RICH, sound="ac3"),
    "wmv wmv2 wma": Film("asf", "wmv2", gop=8, settings=_RICH, sound="wmav2", sound_rate=44_100),
    "wmv wmv1 wma": Film("asf", "wmv1", gop=8, settings=_RICH, sound="wmav1", sound_rate=44_100),
    "nut mpeg4 mp2": Film("nut", "mpeg4", gop=8, settings=_RICH, sound="mp2"),
    "gif": Film("gif", "gif", pixels="rgb8"),
    "apng": Film("apng", "apng", pixels="rgb24"),
    "ivf vp8": Film("ivf", "libvpx", gop=8, options=_VP),
    "y4m": Film("yuv4mpegpipe", "rawvideo"),
}
#: 15 bits a pixel, or times in whole milliseconds: right to the nearest frame.
COARSE: dict[str, Film] = {
    "mov video": Film("mov", "rpza", pixels="rgb555le"),
    "avi video 1": Film("avi", "msvideo1", pixels="rgb555le"),
    "rm realvideo": Film("rm", "rv10", gop=8),
}
#: Nothing in them says when a frame is shown.
UNTIMED: dict[str, Film] = {
    "h264 alone": Film("h264", "libx264", gop=8, options={"bf": "2"}),
    "hevc alone": Film("hevc", "libx265", gop=8, options=_X265),
    "mjpeg alone": Film("mjpeg", "mjpeg", pixels="yuvj420p"),
}

TONES: dict[str, Tone] = {
    "m4a aac": Tone("ipod", "aac"),
    "m4a aac mono 22 kHz": Tone("ipod", "aac", rate=22_050, layout="mono"),
    "m4a alac": Tone("ipod", "alac"),
    "mp4 opus": Tone("mp4", "libopus"),
    "mp4 flac": Tone("mp4", "flac"),
    "mp4 mp3": Tone("mp4", "libmp3lame"),
    "mp4 eac3": Tone("mp4", "eac3"),
    "mp4 in fragments": Tone("mp4", "aac", muxing=_FRAGMENTS),
    "aac": Tone("adts", "aac"),
    "aac 5.1": Tone("adts", "aac", layout="5.1"),
    "wma 1": Tone("asf", "wmav1", rate=44_100),
    "wma 2": Tone("asf", "wmav2", rate=44_100),
    "amr": Tone("amr", "libopencore_amrnb", rate=8000, layout="mono"),
    "webm opus": Tone("webm", "libopus"),
    "webm vorbis": Tone("webm", "vorbis", options=_FREE),
    "mka flac": Tone("matroska", "flac"),
    "mka mp3": Tone("matroska", "libmp3lame"),
    "mka ac3 5.1": Tone("matroska", "ac3", layout="5.1"),
    "mka 8 bit": Tone("matroska", "pcm_u8"),
    "mka 16 bit": Tone("matroska", "pcm_s16le"),
    "mka 24 bit": Tone("matroska", "pcm_s24le"),
    "mka float": Tone("matroska", "pcm_f32le"),
    "mka double": Tone("matroska", "pcm_f64le"),
    "mov 16 bit 5.1": Tone("mov", "pcm_s16be", layout="5.1"),
    "mov mu-law": Tone("mov", "pcm_mulaw", rate=8000, layout="mono"),
    "ac3": Tone("ac3", "ac3"),
    "eac3": Tone("eac3", "eac3"),
    "mp2": Tone("mp2", "mp2"),
    "wavpack": Tone("wv", "wavpack"),
    "tta": Tone("tta", "tta"),
    "ogg opus": Tone("ogg", "libopus"),
    "ogg vorbis": Tone("ogg", "vorbis", options=_FREE),
    "ogg flac": Tone("ogg", "flac"),
    "wav adpcm": Tone("wav", "adpcm_ima_wav"),
    "wav g722": Tone("wav", "g722", rate=16_000, layout="mono"),
    "flv mp3": Tone("flv", "libmp3lame", rate=44_100),
    "avi pcm": Tone("avi", "pcm_s16le"),
    "ts aac": Tone("mpegts", "aac"),
    "mpg mp2": Tone("mpeg", "mp2"),
    "rm ra144": Tone("rm", "real_144", rate=8000, layout="mono"),
    "nut pcm": Tone("nut", "pcm_s16le"),
}
